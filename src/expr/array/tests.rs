mod fuzz;
mod vectors;

use std::collections::HashMap;
use std::time::Instant;

use super::*;
use crate::expr::{Name, Scope, parse};
use crate::tensor::simd::Level;
use crate::tensor::{Dtype, Number};

/// Tensors and numbers under names; ids are positions.
#[derive(Default)]
struct World {
    tensors: Vec<(String, Dtype, Shape, Vec<u8>)>,
    numbers: HashMap<String, i128>,
}

impl World {
    fn tensor(mut self, name: &str, dtype: Dtype, dims: &[u64], values: &[f64]) -> World {
        let shape = Shape::new(dims.to_vec()).unwrap();
        let mut bytes = vec![0; shape.bytes(dtype) as usize];
        for (at, &value) in values.iter().cycle().take(shape.elements() as usize).enumerate() {
            dtype.store(&mut bytes, at, dtype.encode(Number::Float(value)).unwrap());
        }
        self.tensors.push((name.into(), dtype, shape, bytes));
        self
    }

    /// A tensor of exactly these numbers.
    fn numbers(mut self, name: &str, dtype: Dtype, dims: &[u64], values: &[Number]) -> World {
        let shape = Shape::new(dims.to_vec()).unwrap();
        assert_eq!(values.len() as u64, shape.elements(), "{name}");
        let mut bytes = vec![0; shape.bytes(dtype) as usize];
        for (at, &value) in values.iter().enumerate() {
            dtype.store(&mut bytes, at, dtype.encode(value).unwrap());
        }
        self.tensors.push((name.into(), dtype, shape, bytes));
        self
    }

    fn number(mut self, name: &str, value: i128) -> World {
        self.numbers.insert(name.into(), value);
        self
    }

    fn compile(&self, text: &str, shape: &[u64]) -> Result<Program, TextError> {
        let shape = Shape::new(shape.to_vec()).unwrap();
        compile(&parse(text)?, self, &shape)?.broadcast_to(&shape)
    }

    fn eval(&self, text: &str, shape: &[u64]) -> Result<Vec<Number>, TextError> {
        let program = self.compile(text, shape)?;
        let mut results = Vec::new();
        // A level holds for this thread only.
        let levels = Level::all().into_iter().map(|level| (level, false));
        for (level, parallel) in levels.chain([(Level::detect(), true)]) {
            let evaluate = || self.evaluate(&program, parallel);
            results.push(if parallel { evaluate() } else { level.force(evaluate) }?);
        }
        let bits = |values: &[Number]| values.iter().map(|x| (x.to_f64().to_bits(), x.to_integer())).collect::<Vec<_>>();
        for other in &results[1..] {
            assert_eq!(bits(&results[0]), bits(other), "{text}: threads or levels change the values");
        }
        Ok(results.swap_remove(0))
    }

    fn evaluate(&self, program: &Program, parallel: bool) -> Result<Vec<Number>, TextError> {
        let (mut scratch, mut registers) = (program.scratch(2), program.registers());
        program.prepare(&mut scratch, self, 5, parallel)?;
        let (mut values, mut start) = (Vec::new(), 0);
        while start < program.shape().elements() {
            let len = (program.shape().elements() - start).min(1024) as usize;
            match program.block(&scratch, &mut registers, self, 5, start, len)? {
                Block::Float(block) => values.extend(block.iter().map(|&x| Number::Float(x))),
                Block::Int(block) => values.extend(block.iter().map(|&x| Number::Int(x))),
            }
            start += len as u64;
        }
        Ok(values)
    }

    fn floats(&self, text: &str, shape: &[u64]) -> Vec<f64> {
        self.eval(text, shape).unwrap_or_else(|e| panic!("{text}: {e}")).into_iter().map(Number::to_f64).collect()
    }
}

impl Scope for World {
    fn get(&self, name: &str) -> Option<Name<'_>> {
        if name == "round" {
            return Some(Name::Round);
        }
        if let Some(&value) = self.numbers.get(name) {
            return Some(Name::Number(Number::Int(value)));
        }
        let id = self.tensors.iter().position(|(known, ..)| known == name)?;
        let (_, dtype, shape, _) = &self.tensors[id];
        Some(Name::Tensor { id, dtype: *dtype, shape })
    }

    fn names(&self) -> Vec<String> {
        self.tensors.iter().map(|(name, ..)| name.clone()).chain(self.numbers.keys().cloned()).collect()
    }
}

impl Inputs for World {
    fn bytes(&self, id: usize) -> &[u8] {
        &self.tensors[id].3
    }
}

fn world() -> World {
    World::default()
        .tensor("x", Dtype::F32, &[3, 4], &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.])
        .tensor("v", Dtype::F64, &[4], &[1., -2., 0.5, 3.])
        .tensor("a", Dtype::F16, &[], &[2.5])
        .tensor("i", Dtype::I32, &[4], &[7., -7., 3., 0.])
        .tensor("b", Dtype::Bool, &[4], &[1., 0., 1., 1.])
        .tensor("big", Dtype::U64, &[2], &[9007199254740994., 1.])
        .number("n", 4)
}

#[test]
fn elementwise_views_and_reductions() {
    let w = world();
    for (text, shape, want) in [
        ("a * v + 1", &[4][..], &[3.5, -4.0, 2.25, 8.5][..]),
        ("v", &[2, 4], &[1., -2., 0.5, 3., 1., -2., 0.5, 3.]),
        ("x[1] - v", &[4], &[3., 7., 5.5, 4.]),
        ("x[1:, 2:n]", &[2, 2], &[6., 7., 10., 11.]),
        ("transpose(x)[1:3]", &[2, 3], &[1., 5., 9., 2., 6., 10.]),
        ("(x + 1)[2, 1:3]", &[2], &[10., 11.]),
        ("sum(x)", &[], &[66.]),
        ("sum(x, axis=0)", &[4], &[12., 15., 18., 21.]),
        ("sum(x, axis=-1)", &[3], &[6., 22., 38.]),
        ("max(x, axis=1) + min(v)", &[3], &[1., 5., 9.]),
        ("mean(i)", &[], &[0.75]),
        ("prod(i[0:3])", &[], &[-147.]),
        ("sum(x > 4)", &[], &[7.]),
        ("all(b)", &[], &[0.]),
        ("any(isnan(v)) or all(isfinite(x))", &[], &[1.]),
        ("i // 2", &[4], &[3., -4., 1., 0.]),
        ("i % -4", &[4], &[-1., -3., -1., 0.]),
        ("i / 2", &[4], &[3.5, -3.5, 1.5, 0.]),
        ("v // 2", &[4], &[0., -1., 0., 1.]),
        ("where(i > 0, v, -1)", &[4], &[1., -1., 0.5, -1.]),
        ("u8(i)", &[4], &[7., 249., 3., 0.]),
        ("~b", &[4], &[0., 1., 0., 0.]),
        ("index(1) * 10 + index(0)", &[2, 3], &[0., 10., 20., 1., 11., 21.]),
        ("round + 0.5", &[2], &[5.5, 5.5]),
        ("matmul(x, v)", &[3], &[8., 18., 28.]),
        ("matmul(v, transpose(x))", &[3], &[8., 18., 28.]),
        ("matmul(i, i)", &[], &[107.]),
        (
            "matmul(transpose(x), x)",
            &[4, 4],
            &[80., 92., 104., 116., 92., 107., 122., 137., 104., 122., 140., 158., 116., 137., 158., 179.],
        ),
        ("clamp(v, -1, 1)", &[4], &[1., -1., 0.5, 1.]),
        ("max(v, 0, a)", &[4], &[2.5, 2.5, 2.5, 3.]),
        ("v ** 2", &[4], &[1., 4., 0.25, 9.]),
        ("x - max(x, axis=1)[0] + max(x, axis=1)[0]", &[3, 4], &[0., 1., 2., 3., 4., 5., 6., 7., 8., 9., 10., 11.]),
        ("min(nan, v)", &[4], &[f64::NAN; 4]),
    ] {
        let got = w.floats(text, shape);
        let same = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()));
        assert!(same, "{text}: {got:?} instead of {want:?}");
    }
    assert_eq!(w.eval("big + 1", &[2]).unwrap()[0], Number::Int(9007199254740995));
}

#[test]
fn products_equal_the_plain_loop_bit_for_bit() {
    let noise: Vec<f64> = (0..997).map(|k| ((k * 7919 % 1009) as f64 - 500.0) / 37.0).collect();
    for (m, k, n) in [(1, 1, 1), (8, 16, 16), (9, 5, 17), (130, 33, 40), (3, 0, 2)] {
        let w = World::default().tensor("p", Dtype::F32, &[m, k], &noise).tensor("q", Dtype::F64, &[2, k, n], &noise);
        let got = w.floats("matmul(p, q)", &[2, m, n]);
        let (p, q) = (w.floats("p", &[m, k]), w.floats("q", &[2, k, n]));
        for (at, got) in got.iter().enumerate() {
            let (g, i, j) = (at / (m * n) as usize, at / n as usize % m as usize, at % n as usize);
            let mut sum = 0.0;
            for l in 0..k as usize {
                sum += p[i * k as usize + l] * q[(g * k as usize + l) * n as usize + j];
            }
            assert_eq!(got.to_bits(), sum.to_bits(), "{m}x{k}x{n} at {at}");
        }
    }
}

#[test]
fn sums_are_accurate_and_independent_of_threads() {
    let w = World::default().tensor("t", Dtype::F32, &[300_001], &[1e8, 1.0, -1e8, 1e-3]);
    let want = 75_000.0 * (1.0 + f64::from(1e-3f32)) + 1e8;
    assert_eq!(w.floats("sum(t)", &[]), [want]);
    let w = World::default().tensor("t", Dtype::F64, &[2], &[1.0, 2.0]);
    assert_eq!(w.floats("sum(1 / (t - 1))", &[]), [f64::INFINITY]);
}

#[test]
fn errors_name_the_value_and_the_place() {
    let w = world();
    for (text, shape, span, part) in [
        ("x + y", &[3, 4][..], 4..5, "`y` is not known"),
        ("x + v[0:3]", &[3, 4], 0..10, "do not broadcast"),
        ("sun(x)", &[], 0..3, "not a function"),
        ("x[3]", &[4], 2..3, "index 3 is out of range for the extent 3"),
        ("x[i]", &[4, 4], 2..3, "index 7 is out of range for the extent 3"),
        ("x[0:5]", &[4, 4], 4..5, "bound 5"),
        ("sum(x, axis=2)", &[], 12..13, "axis 2"),
        ("matmul(x, x)", &[3, 3], 0..12, "[3, 4] and [3, 4]"),
        ("v ^ 2", &[4], 0..5, "xor"),
        ("x", &[4, 4], 0..0, "shape [3, 4], the tensor has [4, 4]"),
        ("i // 0", &[4], 0..6, "divides by zero"),
        ("2 ** i", &[4], 0..6, "negative exponent -7"),
        ("prod(big + 2 ** 126)", &[], 0..20, "overflows"),
        ("cumsun(x)", &[3, 4], 0..6, "not a function"),
        ("exp(x, v)", &[3, 4], 0..9, "takes 1 argument,"),
        ("after(x)", &[3, 4], 6..7, "`after(x)` may not stand here"),
        ("after(y)", &[3, 4], 6..7, "`y` is not known"),
        ("max(v[0:0])", &[], 0..11, "no elements"),
    ] {
        let error = w.eval(text, shape).expect_err(text);
        assert!(error.message.contains(part), "{text}: {}", error.message);
        assert_eq!(error.span, span, "{text}: {}", error.message);
    }
}

#[test]
fn a_cast_rounds_once() {
    // A double just above the middle of two halves: rounding to f32 first would land on the middle.
    let above = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
    let w = World::default().tensor("t", Dtype::F64, &[6], &[above, 65520.0, 65519.9, 2f64.powi(-24), -0.0, f64::NAN]);
    let got = w.floats("f16(t)", &[6]);
    assert_eq!(got[..5], [1.0 + 2f64.powi(-10), f64::INFINITY, 65504.0, 2f64.powi(-24), 0.0]);
    assert!(got[4].is_sign_negative() && got[5].is_nan());
}

#[test]
#[ignore = "prints times"]
fn times() {
    let noise: Vec<f64> = (0..997).map(|k| ((k * 7919 % 1009) as f64 - 500.0) / 37.0).collect();
    let w = World::default()
        .tensor("x", Dtype::F32, &[1024], &noise)
        .tensor("y", Dtype::F32, &[1024], &noise)
        .tensor("a", Dtype::F32, &[], &noise)
        .tensor("p", Dtype::F32, &[512, 512], &noise)
        .tensor("q", Dtype::F32, &[4096, 1024], &noise);
    for (text, shape, repeats) in [
        ("a * x + y", &[1024][..], 200_000),
        ("x + y", &[1024], 200_000),
        ("where(x > y, x, y)", &[1024], 20_000),
        ("exp(x)", &[1024], 2000),
        ("f16(x)", &[1024], 100_000),
        ("sum(q)", &[], 50),
        ("max(q, axis=0)", &[1024], 10),
        ("matmul(p, p)", &[512, 512], 20),
    ] {
        let program = w.compile(text, shape).unwrap();
        for parallel in [false, true] {
            let (mut scratch, mut registers) = (program.scratch(2), program.registers());
            let mut best = f64::INFINITY;
            for _ in 0..5 {
                let start = Instant::now();
                for _ in 0..repeats {
                    program.prepare(&mut scratch, &w, 0, parallel).unwrap();
                    let len = program.shape().elements().min(1024) as usize;
                    std::hint::black_box(program.block(&scratch, &mut registers, &w, 0, 0, len).unwrap());
                }
                best = best.min(start.elapsed().as_secs_f64() / f64::from(repeats));
            }
            println!("{text:<24} parallel={parallel:<5} {:>12.0} ns", best * 1e9);
        }
    }
}

/// The tensors of a world at the start of the round, and what they hold at its end; `y` has contents only there.
struct Round(World, World);

impl Scope for Round {
    fn get(&self, name: &str) -> Option<Name<'_>> {
        if name == "y" { Some(Name::Refused("`y` has no contents".into())) } else { self.0.get(name) }
    }

    fn after(&self, name: &str) -> Option<Name<'_>> {
        self.1.get(name)
    }

    fn names(&self) -> Vec<String> {
        self.1.names()
    }
}

impl Inputs for Round {
    fn bytes(&self, id: usize) -> &[u8] {
        self.0.bytes(id)
    }

    fn after(&self, id: usize) -> &[u8] {
        self.1.bytes(id)
    }
}

#[test]
fn after_is_the_end_of_the_round() {
    let start = World::default().tensor("x", Dtype::F32, &[3], &[1., 2., 3.]).number("n", 3);
    let end = World::default()
        .tensor("x", Dtype::F32, &[3], &[2., 4., 6.])
        .tensor("y", Dtype::F32, &[1, 2], &[0.5, f64::NAN])
        .tensor("ok", Dtype::Bool, &[1, 1], &[1.])
        .number("n", 3);
    let round = Round(start, end);
    let scalar = Shape::new(vec![]).unwrap();
    let condition = |text: &str| compile_condition(&parse(text)?, &round, &scalar);
    for (text, start, end, want) in [
        ("all(after(x) == 2 * x)", &[0][..], &[0][..], true),
        ("all(isfinite(after(y)))", &[], &[1], false),
        ("isfinite(after(y))[0, 0]", &[], &[1], true),
        ("after(ok)", &[], &[2], true),
        ("not after(ok)", &[], &[2], false),
        ("sum(after(x)) > 6 and sum(x) == 6 and round == 7", &[0], &[0], true),
        ("true", &[], &[], true),
        ("max(x[1:2], 5) > 4", &[0], &[], true),
    ] {
        let program = condition(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((program.tensors(), program.after_tensors()), (start, end), "{text}");
        let (mut scratch, mut registers) = (program.scratch(1), program.registers());
        assert_eq!(program.holds(&mut scratch, &mut registers, &round, 7, false), Ok(want), "{text}");
    }
    for (text, span, part) in [
        ("after(z)", 6..7, "`z` is not known"),
        ("after(n)", 6..7, "`n` is not a tensor"),
        ("after(x[0])", 6..10, "takes the name of a tensor"),
        ("after(x, y)", 0..11, "takes 1 argument"),
        ("y[0, 0] > 1", 0..1, "no contents"),
        ("x > 1", 0..5, "has shape [3]"),
        ("sum(x)", 0..6, "the expression gives floats"),
        ("3", 0..1, "the expression gives integers"),
    ] {
        let error = condition(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {}", error.message);
        assert_eq!(error.span, span, "{text}: {}", error.message);
    }
    let mask = compile_condition(&parse("x > 1").unwrap(), &round, &Shape::new(vec![2, 3]).unwrap()).unwrap();
    assert_eq!((mask.shape().dims(), mask.kind()), (&[2, 3][..], Kind::Bool));
    // Inputs that do not say how a round ends have no bytes for it.
    let program = condition("all(after(x) > 0)").unwrap();
    let error = program.holds(&mut program.scratch(1), &mut program.registers(), &round.0, 0, false).unwrap_err();
    assert!(error.message.contains("0 bytes"), "{}", error.message);
}
