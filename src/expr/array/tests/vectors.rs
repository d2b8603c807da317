//! Every function against the values that NumPy gives, which `tests/vectors` keeps.

use std::collections::BTreeSet;

use serde_json::Value;

use super::World;
use crate::expr::{Kind, function_names, parse};
use crate::tensor::{Dtype, Number};

const FILES: [(&str, &str); 5] = [
    ("elements", include_str!("../../../../tests/vectors/elements.json")),
    ("edges", include_str!("../../../../tests/vectors/edges.json")),
    ("axes", include_str!("../../../../tests/vectors/axes.json")),
    ("places", include_str!("../../../../tests/vectors/places.json")),
    ("groups", include_str!("../../../../tests/vectors/groups.json")),
];

fn dims(row: &Value) -> Vec<u64> {
    row["shape"].as_array().unwrap().iter().map(|x| x.as_u64().unwrap()).collect()
}

/// What begins with `0x` are the bits of a float, anything else is an integer.
fn numbers(row: &Value) -> Vec<Number> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(bits) => Number::Float(f64::from_bits(u64::from_str_radix(bits, 16).unwrap())),
        None => Number::Int(text.parse().unwrap()),
    };
    row["values"].as_str().unwrap().split_whitespace().map(number).collect()
}

/// Equal: integers as such, floats bit for bit, or within rounding; NaN is any NaN.
fn same(got: Number, want: Number, close: bool) -> bool {
    match (got, want) {
        (Number::Int(a), Number::Int(b)) => a == b,
        (a, b) => {
            let (a, b) = (a.to_f64(), b.to_f64());
            let near = close && (a - b).abs() <= 4e-15 * b.abs().max(1e-1);
            near || a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan()) || (a == b && (close || a != 0.0))
        }
    }
}

#[test]
fn every_function_gives_numpys_values() {
    let mut called = BTreeSet::new();
    let mut wrong = Vec::new();
    for (name, text) in FILES {
        let file: Value = serde_json::from_str(text).unwrap();
        let mut world = World::default();
        for tensor in file["tensors"].as_array().unwrap() {
            let dtype = Dtype::from_name(tensor["dtype"].as_str().unwrap()).unwrap();
            world = world.numbers(tensor["name"].as_str().unwrap(), dtype, &dims(tensor), &numbers(tensor));
        }
        for case in file["cases"].as_array().unwrap() {
            let (text, shape, want) = (case["text"].as_str().unwrap(), dims(case), numbers(case));
            parse(text).unwrap().words(&mut |word, _, is_function| {
                if is_function {
                    called.insert(word.to_string());
                }
            });
            let got = match world.eval(text, &shape) {
                Ok(got) => got,
                Err(error) => {
                    wrong.push(format!("{name}: {text}: {error}"));
                    continue;
                }
            };
            let program = world.compile(text, &shape).unwrap();
            assert_eq!(program.shape().dims(), shape, "{name}: {text}");
            let close = case["close"] == true;
            // Integers are exact and bools are 0 or 1; only floats are doubles.
            let kinds = want.iter().all(|x| matches!(x, Number::Float(_)) == (program.kind() == Kind::Float));
            let same = got.len() == want.len() && got.iter().zip(&want).all(|(&a, &b)| same(a, b, close));
            if !(same && (kinds || close)) {
                wrong.push(format!("{name}: {text}: {got:?} instead of {want:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    // `after` has tests of its own; the 8-bit floats have vectors of their own.
    let known = function_names().into_iter().filter(|name| name != "after" && !name.starts_with("f8")).collect::<BTreeSet<_>>();
    let missing: Vec<_> = known.difference(&called).collect();
    assert!(missing.is_empty(), "no vector calls {missing:?}");
}
