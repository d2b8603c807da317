//! Whether a condition holds after a round, and in words why not.

use super::collect::{RoundInputs, failure};
use super::work::Evaluator;
use crate::expr::{Binary, Program};
use crate::job::{Condition, Job};
use crate::tensor::{Dtype, Number};
use crate::verdict::{Failure, Kind};

/// Evaluates a condition. Returns what is wrong, if anything; allocates only then.
///
/// *Errors*: a value that this round cannot have.
pub(super) fn condition(
    job: &Job,
    condition: &Condition,
    evaluators: &mut [Evaluator],
    inputs: &RoundInputs<'_>,
    parallel: bool,
) -> Result<Option<Failure>, String> {
    let round = inputs.slot.round;
    let [whole, of_sides @ ..] = evaluators else { return Err("the condition has no scratch".into()) };
    let mut values = [None, None];
    let holds = number(&condition.program, whole, inputs, parallel)? == Number::Int(1);
    if let Some((left, op, right)) = &condition.sides
        && (!holds || *op == Binary::Ne)
    {
        for ((value, side), program) in values.iter_mut().zip(of_sides).zip([left, right]) {
            *value = Some(number(program, side, inputs, parallel)?);
        }
    }
    // NaN is unequal to everything, which is no reason to believe anything of it.
    let side_is_nan = !condition.asks_nan && values.iter().flatten().any(|value| value.is_nan());
    let mut nan = None;
    if !condition.asks_nan {
        nan = condition.program.after_tensors().iter().find_map(|&id| {
            let dtype = job.tensors[id].dtype;
            let first = first_nan(dtype, crate::expr::Inputs::after(inputs, id))?;
            Some((id, first))
        });
    }
    if holds && !side_is_nan && nan.is_none() {
        return Ok(None);
    }
    let mut message = match (&condition.sides, values) {
        (Some((_, op, _)), [Some(left), Some(right)]) => format!("`{}` does not hold: {}", condition.text, refuted(left, *op, right)),
        _ if holds => format!("`{}` is no statement about NaN", condition.text),
        _ => format!("`{}` does not hold", condition.text),
    };
    let mut out = failure(job, round, inputs.slot.set, Kind::Condition, String::new());
    if let Some((id, first)) = nan {
        let tensor = &job.tensors[id];
        let place = tensor.shape.index_of(first);
        if holds && !side_is_nan {
            message = format!("`{}` cannot be relied on: `{}` holds NaN", condition.text, tensor.name);
        }
        out.tensor = Some(tensor.name.clone());
        out.patterns
            .push(format!("`{}` is NaN at {place:?}: NaN makes no condition true, unless it asks with `isnan` or `isfinite`", tensor.name));
    }
    out.message = message;
    out.check = Some(condition.text.clone());
    Ok(Some(out))
}

/// The one number of a program.
fn number(program: &Program, evaluator: &mut Evaluator, inputs: &RoundInputs<'_>, parallel: bool) -> Result<Number, String> {
    let round = inputs.slot.round;
    evaluator.prepare(program, inputs, round, parallel)?;
    let mut registers = evaluator.registers();
    Ok(program.block(evaluator.scratch(), &mut registers, inputs, round, 0, 1).map_err(|e| e.message)?.number(0))
}

/// What is the case instead: `1.25 > 1`.
fn refuted(left: Number, op: Binary, right: Number) -> String {
    if left.is_nan() || right.is_nan() {
        return format!("{left} against {right}, and NaN makes no comparison true");
    }
    let sign = match op {
        Binary::Lt => ">=",
        Binary::Le => ">",
        Binary::Gt => "<=",
        Binary::Ge => "<",
        Binary::Eq => "!=",
        _ => "==",
    };
    format!("{left} {sign} {right}")
}

/// Where the first NaN is.
fn first_nan(dtype: Dtype, bytes: &[u8]) -> Option<u64> {
    if !dtype.is_float() {
        return None;
    }
    let is_nan = |i: &usize| dtype.decode(dtype.load(bytes, *i)).is_nan();
    let any = match dtype {
        Dtype::F32 => bytes.as_chunks::<4>().0.iter().fold(false, |any, b| any | f32::from_le_bytes(*b).is_nan()),
        Dtype::F64 => bytes.as_chunks::<8>().0.iter().fold(false, |any, b| any | f64::from_le_bytes(*b).is_nan()),
        _ => true,
    };
    let len = bytes.len() / dtype.size();
    if any { (0..len).find(is_nan).map(|i| i as u64) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_nan_is_found_in_every_float_dtype() {
        for dtype in Dtype::ALL {
            let mut bytes = vec![0; 40 * dtype.size()];
            assert_eq!(first_nan(dtype, &bytes), None, "{dtype}");
            if let Ok(nan) = dtype.encode(Number::Float(f64::NAN)) {
                dtype.store(&mut bytes, 17, nan);
                dtype.store(&mut bytes, 30, nan);
                assert_eq!(first_nan(dtype, &bytes), Some(17), "{dtype}");
            }
        }
    }

    #[test]
    fn what_is_the_case_is_said() {
        assert_eq!(refuted(Number::Float(1.25), Binary::Le, Number::Float(1.0)), "1.25 > 1");
        assert_eq!(refuted(Number::Int(3), Binary::Eq, Number::Int(4)), "3 != 4");
        assert_eq!(refuted(Number::Int(3), Binary::Ne, Number::Int(3)), "3 == 3");
        assert!(refuted(Number::Float(f64::NAN), Binary::Ne, Number::Int(3)).contains("nan against 3"));
    }
}
