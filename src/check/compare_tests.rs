//! The fast loops against the definition, element for element.

use std::hint::black_box;
use std::time::Instant;

use proptest::prelude::*;

use super::*;

const FLOATS: [Dtype; 6] = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F8e4m3, Dtype::F8e5m2];

fn tolerances() -> Vec<Tolerance> {
    let mut all = Vec::new();
    for (rtol, atol, ulp, exact) in [
        (None, None, None, true),
        (Some(1e-3), Some(1e-5), None, false),
        (Some(0.0), Some(0.0), None, false),
        (Some(0.5), None, None, false),
        (None, Some(1e30), None, false),
        (Some(1e300), Some(f64::MAX), None, false),
        (Some(f64::NAN), None, None, false),
        (Some(f64::INFINITY), None, None, false),
        (Some(-1.0), Some(-1.0), None, false),
        (None, None, Some(0), false),
        (None, None, Some(1), false),
        (None, None, Some(1 << 15), false),
        (None, None, Some(u64::MAX), false),
        (Some(0.1), Some(0.1), Some(3), true),
    ] {
        for nan_equal in [false, true] {
            all.push(Tolerance { bitwise: true, nan_equal, ..Tolerance::default() });
            all.push(Tolerance { exact, rtol, atol, ulp, nan_equal, ..Tolerance::default() });
        }
    }
    all
}

/// Values that are near each other, or special, or anything.
fn pair() -> impl Strategy<Value = (u64, u64, i8, u8)> {
    (any::<u64>(), any::<u64>(), -3i8..=3, 0u8..8)
}

fn make(dtype: Dtype, (a, b, step, kind): (u64, u64, i8, u8)) -> (u64, f64) {
    let mask = if dtype.size() == 8 { u64::MAX } else { (1 << (8 * dtype.size())) - 1 };
    let special = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 5e-324, 1e39, 65520.0, f64::MAX, 1.0];
    let near = (b & mask).wrapping_add_signed(step.into()) & mask;
    let value = dtype.decode(b & mask).to_f64();
    match kind {
        0 => (a & mask, special[(b % 10) as usize]),
        1 => (dtype.encode(Number::Float(special[(a % 10) as usize])).unwrap_or(a & mask), special[(b % 10) as usize]),
        2 => (a & mask, f64::from_bits(b)),
        3 => (b & mask, value.next_up()),
        4 => (near, value.next_down()),
        // Just beside the middle of two values.
        5 => (near, (value + dtype.decode(near).to_f64()) / 2.0),
        _ => (near, value),
    }
}

proptest! {
    #[test]
    fn fast_loops_count_what_the_definition_refuses(pairs in proptest::collection::vec(pair(), 1..70)) {
        for dtype in Dtype::ALL {
            let (bits, want): (Vec<u64>, Vec<f64>) = pairs.iter().map(|&p| make(dtype, p)).unzip();
            let mut got = vec![0; bits.len() * dtype.size()];
            bits.iter().enumerate().for_each(|(i, &b)| dtype.store(&mut got, i, b));
            for tolerance in tolerances() {
                let refused = |i: usize| !tolerance.accepts(dtype, bits[i], Number::Float(want[i]));
                let failing: Vec<u64> = (0..bits.len()).filter(|&i| refused(i)).map(|i| i as u64).collect();
                for level in Level::all() {
                    let mut census = Census::default();
                    compare_at(level, dtype, &got, Block::Float(&want), Places::From(0), &tolerance, &mut census);
                    prop_assert_eq!(census.mismatched, failing.len() as u64, "{} {}", dtype, tolerance);
                    prop_assert!(census.first.iter().map(|m| m.index).eq(failing.iter().copied().take(8)));
                    if !matches!(dtype, Dtype::I64 | Dtype::U64) {
                        let clean = clean_floats(level, dtype, &got, &want, &tolerance);
                        prop_assert!(clean == failing.is_empty() || (tolerance.bitwise && tolerance.nan_equal && !clean));
                        // One element at a time: no failure hides behind another.
                        for i in 0..bits.len() {
                            let got = &got[i * dtype.size()..(i + 1) * dtype.size()];
                            let clean = clean_floats(level, dtype, got, &want[i..=i], &tolerance);
                            let nan = tolerance.bitwise && want[i].is_nan();
                            prop_assert!(clean != refused(i) || (nan && !clean), "{} {} {:x} {}", dtype, tolerance, bits[i], want[i]);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn integers_are_compared_exactly(pairs in proptest::collection::vec((any::<u64>(), -2i128..=2, 0u8..4), 1..70)) {
        for dtype in Dtype::ALL {
            let mask = if dtype.size() == 8 { u64::MAX } else { (1 << (8 * dtype.size())) - 1 };
            let bits: Vec<u64> = pairs.iter().map(|p| p.0 & mask).collect();
            let want: Vec<i128> = pairs.iter().map(|&(b, off, kind)| match (kind, dtype.decode(b & mask).to_integer()) {
                (0, Some(value)) => value.wrapping_add(off),
                // Equal in the low 64 bits alone.
                (1, Some(value)) => value.wrapping_add(off << 64),
                (_, Some(value)) => value,
                (_, None) => i128::from(b) << (off + 2),
            }).collect();
            let mut got = vec![0; bits.len() * dtype.size()];
            bits.iter().enumerate().for_each(|(i, &b)| dtype.store(&mut got, i, b));
            for tolerance in tolerances() {
                let failing = (0..bits.len()).filter(|&i| !tolerance.accepts(dtype, bits[i], Number::Int(want[i]))).count();
                for level in Level::all() {
                    let mut census = Census::default();
                    compare_at(level, dtype, &got, Block::Int(&want), Places::From(0), &tolerance, &mut census);
                    prop_assert_eq!(census.mismatched, failing as u64, "{} {}", dtype, tolerance);
                }
            }
        }
    }
}

#[test]
fn one_wrong_element_is_found_wherever_it_is() {
    for dtype in Dtype::ALL {
        let n = 1024;
        let values: Vec<f64> = (0..n).map(|i| f64::from(i % 2)).collect();
        let integers: Vec<i128> = values.iter().map(|&v| v as i128).collect();
        let mut got = vec![0; n as usize * dtype.size()];
        for (i, &v) in integers.iter().enumerate() {
            dtype.store(&mut got, i, dtype.encode(Number::Int(v)).unwrap());
        }
        let golden = got.clone();
        let tolerance = Tolerance::default_for(dtype);
        let run = |got: &[u8]| {
            let mut all = [Census::default(); 3];
            compare(dtype, got, Block::Float(&values), Places::From(5000), &tolerance, &mut all[0]);
            compare(dtype, got, Block::Int(&integers), Places::At(&(5000..6024).collect::<Vec<_>>()), &tolerance, &mut all[1]);
            compare_bytes(dtype, got, &golden, 5000, &tolerance, &mut all[2]);
            all
        };
        for census in run(&got) {
            assert_eq!((census.compared, census.mismatched, census.worst), (1024, 0, None), "{dtype}");
        }
        for at in [0, 1, 15, 16, 17, 511, 1023] {
            let right = dtype.load(&got, at);
            dtype.store(&mut got, at, dtype.encode(Number::Int(1 - (at as i128 % 2))).unwrap());
            for census in run(&got) {
                assert_eq!((census.mismatched, census.first.len()), (1, 1), "{dtype} {at}");
                assert_eq!(census.first[0].index, 5000 + at as u64);
                assert_eq!(census.worst.unwrap().abs, 1.0);
                assert!(!census.passes(&tolerance));
            }
            dtype.store(&mut got, at, right);
        }
    }
}

#[test]
fn golden_bytes_with_nan_do_not_pass_by_being_equal() {
    for dtype in FLOATS {
        let mut bytes = vec![0; 2000 * dtype.size()];
        dtype.store(&mut bytes, 1500, dtype.encode(Number::Float(f64::NAN)).unwrap());
        let mut tolerance = Tolerance::exact();
        let mut census = Census::default();
        compare_bytes(dtype, &bytes, &bytes, 0, &tolerance, &mut census);
        assert_eq!((census.compared, census.mismatched, census.nan_got, census.nan_want), (2000, 1, 1, 1), "{dtype}");
        assert_eq!(census.first[0].index, 1500);
        let bitwise = Tolerance { bitwise: true, ..Tolerance::default() };
        let mut census = Census::default();
        compare_bytes(dtype, &bytes, &bytes, 0, &bitwise, &mut census);
        assert_eq!((census.compared, census.mismatched), (2000, 1), "{dtype}");
        for tolerance in [&mut tolerance, &mut bitwise.clone()] {
            tolerance.nan_equal = true;
            let mut census = Census::default();
            compare_bytes(dtype, &bytes, &bytes, 0, tolerance, &mut census);
            assert_eq!(census.mismatched, 0, "{dtype}");
        }
    }
}

/// Times of comparing 1,024 elements: `cargo test --release --lib check -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_of_comparisons() {
    let values: Vec<f64> = (0..1024).map(|i| f64::from(i % 100)).collect();
    let integers: Vec<i128> = (0..1024).map(|i| i % 100).collect();
    let ulp = Tolerance { ulp: Some(2), ..Tolerance::default() };
    for dtype in [Dtype::F32, Dtype::F64, Dtype::F16, Dtype::I32, Dtype::I64, Dtype::U8] {
        let mut got = vec![0; 1024 * dtype.size()];
        integers.iter().enumerate().for_each(|(i, &v)| dtype.store(&mut got, i, dtype.encode(Number::Int(v)).unwrap()));
        for tolerance in [Tolerance::default_for(dtype), Tolerance::exact(), ulp.clone()] {
            for level in Level::all() {
                let want = if dtype.is_float() { Block::Float(&values) } else { Block::Int(&integers) };
                let (mut best, mut census) = (f64::MAX, Census::default());
                for _ in 0..50 {
                    let start = Instant::now();
                    for _ in 0..1000 {
                        compare_at(level, dtype, black_box(&got), black_box(want), Places::From(0), &tolerance, &mut census);
                    }
                    best = best.min(start.elapsed().as_secs_f64() * 1e6);
                }
                assert_eq!(census.mismatched, 0);
                println!("{dtype} {tolerance} {level:?}: {best:.0} ns");
            }
        }
    }
}
