//! Known answers: narrow floats against the files of `tests/vectors/fp8.py`.

use std::path::Path;

use runjob::data::Npy;
use runjob::tensor::{Dtype, Number};

fn bits(name: &str, dtype: Dtype) -> Vec<u64> {
    let npy = Npy::open(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap();
    assert!(npy.dtype_matches(dtype), "{name}");
    (0..npy.shape().elements() as usize).map(|i| dtype.load(npy.bytes(), i)).collect()
}

fn unsigned(dtype: Dtype) -> Dtype {
    if dtype.size() == 1 { Dtype::U8 } else { Dtype::U16 }
}

#[test]
fn every_pattern_of_8_bits_stands_for_its_number() {
    for dtype in [Dtype::F8e4m3, Dtype::F8e5m2] {
        let want = bits(&format!("{dtype}_decoded.npy"), Dtype::U32);
        assert_eq!(want.len(), 256);
        for (pattern, want) in want.into_iter().enumerate() {
            let want = f32::from_bits(want as u32);
            let got = dtype.decode(pattern as u64).to_f64();
            assert_eq!(got.is_nan(), want.is_nan(), "{dtype} {pattern:#x}");
            assert_eq!(got.is_sign_negative(), want.is_sign_negative(), "{dtype} {pattern:#x}");
            assert!(got == f64::from(want) || want.is_nan(), "{dtype} {pattern:#x}: {got}, not {want}");
            // A number comes back to its own pattern.
            assert!(want.is_nan() || dtype.encode(Number::Float(got)) == Ok(pattern as u64), "{dtype} {pattern:#x}");
        }
    }
}

#[test]
fn numbers_round_once_to_the_narrow_floats() {
    for dtype in [Dtype::F8e4m3, Dtype::F8e5m2, Dtype::F16, Dtype::Bf16] {
        for wide in [Dtype::F32, Dtype::F64] {
            let numbers = bits(&format!("{dtype}_{wide}.npy"), wide);
            let want = bits(&format!("{dtype}_of_{wide}.npy"), unsigned(dtype));
            assert_eq!(numbers.len(), want.len());
            assert!(numbers.len() > 1400, "{}", numbers.len());
            for (number, want) in numbers.into_iter().zip(want) {
                let number = wide.decode(number);
                assert_eq!(dtype.encode(number), Ok(want), "{number} in {dtype}: {want:#x}");
                // An integer rounds as the float that it equals.
                if let Some(whole) = number.to_integer().filter(|&whole| whole != 0) {
                    assert_eq!(dtype.encode(Number::Int(whole)), Ok(want), "{whole} in {dtype}: {want:#x}");
                }
            }
        }
    }
}
