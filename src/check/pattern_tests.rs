//! Each pattern is named where it holds, and not where it almost does.

use super::*;

const POISON: u32 = 0x7FC0_BEEF;

/// A case: what the tensor should hold, what it holds, and the rest of the evidence.
struct Case {
    dtype: Dtype,
    dims: Vec<u64>,
    want: Vec<f64>,
    got: Vec<f64>,
    unwritten: Vec<usize>,
    previous: Option<Vec<f64>>,
    block: Option<u64>,
}

fn case(dtype: Dtype, dims: &[u64], got: impl Fn(usize, &[f64]) -> f64) -> Case {
    let n: u64 = dims.iter().product();
    // Distinct, of varied size and sign, exact in every dtype.
    let sign = |i: u64| if i % 3 == 1 && (dtype.is_signed() || dtype.is_float()) { -1.0 } else { 1.0 };
    let want: Vec<f64> = (0..n).map(|i| sign(i) * (1 + (i * 37) % 101) as f64).collect();
    let got = (0..want.len()).map(|i| got(i, &want)).collect();
    Case { dtype, dims: dims.to_vec(), want, got, unwritten: vec![], previous: None, block: None }
}

fn floats(dims: &[u64], got: impl Fn(usize, &[f64]) -> f64) -> Case {
    case(Dtype::F32, dims, got)
}

impl Case {
    fn unwritten(mut self, at: impl IntoIterator<Item = usize>) -> Case {
        self.unwritten = at.into_iter().collect();
        self
    }

    fn previous(mut self, value: impl Fn(usize, &Case) -> f64) -> Case {
        self.previous = Some((0..self.want.len()).map(|i| value(i, &self)).collect());
        self
    }

    fn block(mut self, block: u64) -> Case {
        self.block = Some(block);
        self
    }

    fn words(&self) -> Vec<String> {
        let size = self.dtype.size();
        let bytes = |values: &[f64]| {
            let mut bytes = vec![0; values.len() * size];
            values.iter().enumerate().for_each(|(i, &v)| self.dtype.store(&mut bytes, i, self.dtype.encode(Number::Float(v)).unwrap()));
            bytes
        };
        let (want, mut got) = (bytes(&self.want), bytes(&self.got));
        for &i in &self.unwritten {
            (i * size..(i + 1) * size).for_each(|at| got[at] = POISON.to_le_bytes()[at % 4]);
        }
        let wrong: Vec<bool> = (0..self.want.len()).map(|i| got[i * size..(i + 1) * size] != want[i * size..(i + 1) * size]).collect();
        let previous = self.previous.as_ref().map(|values| bytes(values));
        describe(&Evidence {
            dtype: self.dtype,
            shape: &Shape::new(self.dims.clone()).unwrap(),
            wrong: &wrong,
            all: true,
            got: &got,
            want: &want,
            poison: Some(POISON),
            spaced: false,
            previous: previous.as_ref().map(|bytes| (41, &bytes[..])),
            block: self.block,
        })
    }
}

fn right(i: usize, want: &[f64]) -> f64 {
    want[i]
}

#[test]
fn patterns_that_hold_are_named_exactly() {
    for (case, words) in [
        (floats(&[64], right), &[][..]),
        (floats(&[64], right).unwritten(0..64), &["all 64 elements were never written"]),
        (floats(&[64], right).unwritten(60..64), &["elements 60-63 were never written"]),
        (floats(&[64], right).unwritten([5]), &["element 5 was never written"]),
        (floats(&[16, 8], right).unwritten(120..128), &["row 15 was never written"]),
        (floats(&[16, 8], right).unwritten(112..128), &["rows 14-15 were never written"]),
        (floats(&[4, 8], right).unwritten([6, 7, 14, 15, 22, 23, 30, 31]), &["columns 6-7 were never written"]),
        (floats(&[64], right).unwritten([1, 5, 7]), &["all 3 wrong elements were never written"]),
        (case(Dtype::U8, &[64], right).unwritten(32..64), &["elements 32-63 were never written"]),
        (case(Dtype::F16, &[64], right).unwritten(33..64), &["elements 33-63 were never written"]),
        // A byte of the poison is this dtype's NaN.
        (case(Dtype::F8e4m3, &[64], |_, _| f64::NAN), &["all 64 wrong elements are NaN", "all 64 elements are wrong"]),
        (case(Dtype::F8e4m3, &[64], right).unwritten(32..64), &["elements 32-63 were never written"]),
        (case(Dtype::F64, &[64], right).unwritten(33..64), &["elements 33-63 were never written"]),
        (floats(&[10], |i, w| if i < 2 { 1000.0 + i as f64 } else { w[i] }).unwritten(8..10), &["elements 8-9 were never written"]),
        (
            floats(&[4, 10], |i, w| w[i] + if i % 10 >= 8 { 0.25 * (i + 1) as f64 } else { 0.0 }).block(4),
            &["columns 8-9: the last, partial block of 4", "columns 8-9 are wrong, and no other"],
        ),
        (
            floats(&[1000], right).unwritten(768..1000).block(256),
            &["elements 768-999 were never written", "elements 768-999: the last, partial block of 256"],
        ),
        (floats(&[64], |i, w| w[(i + 1) % 64]), &["got[i] = want[i+1] throughout: shifted by one element", "all 64 elements are wrong"]),
        (
            floats(&[64], |i, w| if i == 0 { 7777.0 } else { w[i - 1] }),
            &["got[i] = want[i-1] throughout: shifted by one element", "all 64 elements are wrong"],
        ),
        (
            floats(&[64], |i, w| if (8..16).contains(&i) { w[i + 1] } else { w[i] }),
            &["got[i] = want[i+1] in all 8 wrong elements: shifted by one element", "elements 8-15 are wrong, and no other"],
        ),
        (
            floats(&[8], |i, _| (i * i) as f64 + 0.5).previous(|i, c| c.got[i]),
            &["the output holds the bytes of round 41", "all 8 elements are wrong"],
        ),
        (
            floats(&[8], |i, w| if i < 4 { (i * i) as f64 + 0.5 } else { w[i] }).previous(|i, c| if i < 4 { c.got[i] } else { 0.0 }),
            &["all 4 wrong elements hold the bytes of round 41", "elements 0-3 are wrong, and no other"],
        ),
        (floats(&[9], |i, w| w[i] + 0.3 * (i * i + 1) as f64), &["all 9 elements are wrong"]),
        (
            floats(&[256], |i, w| if i % 64 == 63 { 0.3 * (i * i) as f64 } else { w[i] }),
            &["every 64th element from 63 is wrong, and no other"],
        ),
        (
            floats(&[4, 8], |i, w| if i / 8 > 1 && i % 8 > 5 { 0.3 * (i * i) as f64 } else { w[i] }),
            &["rows 2-3, columns 6-7 are wrong, and no other"],
        ),
        (
            floats(&[64], |i, w| match i {
                0..17 => f64::NAN,
                17..20 => 1e6 + (i * i) as f64,
                _ => w[i],
            }),
            &["17 of 20 wrong elements are NaN", "elements 0-19 are wrong, and no other"],
        ),
        (floats(&[8], |_, _| 0.0), &["all 8 wrong elements are 0", "all 8 elements are wrong"]),
        (floats(&[8], |i, w| if i == 3 { f64::NAN } else { w[i] }), &["the only wrong element is NaN", "element 3 is wrong, and no other"]),
        (floats(&[8], |i, w| -w[i]), &["got = -want in all 8 wrong elements", "all 8 elements are wrong"]),
        (case(Dtype::I32, &[8], |i, w| -w[i]), &["got = -want in all 8 wrong elements", "all 8 elements are wrong"]),
        (floats(&[8], |i, w| 2.0 * w[i]), &["got = 2 * want in all 8 wrong elements", "all 8 elements are wrong"]),
        (case(Dtype::I32, &[8], |i, w| 3.0 * w[i]), &["got = 3 * want in all 8 wrong elements", "all 8 elements are wrong"]),
        (floats(&[8], |i, w| w[i] * 0.125), &["got = 0.125 * want in all 8 wrong elements", "all 8 elements are wrong"]),
        (
            floats(&[8], |i, w| -2.5 * w[i]).unwritten([7]),
            &["element 7 was never written", "got = -2.5 * want in 7 of 8 wrong elements", "all 8 elements are wrong"],
        ),
        (case(Dtype::I32, &[8], |i, w| w[i] + 1.0), &["got = want + 1 in all 8 wrong elements", "all 8 elements are wrong"]),
        (case(Dtype::U32, &[8], |i, w| w[i] - 1.0), &["got = want - 1 in all 8 wrong elements", "all 8 elements are wrong"]),
        (floats(&[5, 5], |i, w| w[i % 5 * 5 + i / 5]), &["got[r, c] = want[c, r] in all 20 wrong elements: transposed"]),
    ] {
        assert_eq!(case.words(), words, "{:?} {:?} {:?}", case.dtype, case.dims, case.got);
    }
}

#[test]
fn patterns_that_almost_hold_are_not_named() {
    for (case, part) in [
        // Right although it is the poison: an element that passed its check is never called unwritten.
        (floats(&[8], |i, w| w[i] + (i * i) as f64 + 0.5), "never written"),
        (case(Dtype::U8, &[250], |i, w| if i == 3 { w[i] } else { (w[i] * 2.0) % 173.0 }).unwritten([3]), "never written"),
        // One wrong element outside of the last block, a width that the block divides, no block known.
        (floats(&[10], |i, w| w[i] + if i >= 7 { (i * i) as f64 } else { 0.0 }).block(4), "partial block"),
        (floats(&[8], |i, w| w[i] + if i >= 4 { (i * i) as f64 } else { 0.0 }).block(4), "partial block"),
        (floats(&[10], |i, w| w[i] + if i >= 8 { (i * i) as f64 } else { 0.0 }), "partial block"),
        (floats(&[64], |i, w| if i == 20 { 7777.0 } else { w[(i + 1) % 64] }), "shifted"),
        (floats(&[64], |i, w| if i == 20 { w[21] } else { w[i] }), "shifted"),
        (floats(&[64], |i, w| w[(i + 2) % 64]), "shifted"),
        (floats(&[8], |i, _| (i * i) as f64 + 0.5).previous(|i, _| i as f64), "bytes of round"),
        (floats(&[8], |_, _| 0.0).previous(|_, _| 0.0), "bytes of round"),
        (floats(&[8], |i, w| if i == 4 { w[i] } else { 0.3 * (i * i) as f64 }), "all 8 elements"),
        (floats(&[256], |i, w| if i % 64 == 63 || i == 70 { 0.3 * (i * i) as f64 } else { w[i] }), "every"),
        (floats(&[4, 8], |i, w| if i / 8 > 1 && i % 8 > 5 && i != 31 { 0.3 * (i * i) as f64 } else { w[i] }), "rows"),
        (floats(&[64], |i, w| if i == 9 { 9e9 } else { w[i] }), "NaN"),
        // The poison is a NaN of its own.
        (floats(&[64], right).unwritten(0..9), "NaN"),
        (floats(&[8], |i, _| if i < 4 { 0.0 } else { 1e4 + (i * i) as f64 }), "are 0"),
        (floats(&[8], |i, w| if i == 5 { 9999.0 } else { -w[i] }), "-want"),
        (floats(&[8], |i, w| if i == 5 { 9999.0 } else { 2.0 * w[i] }), "* want"),
        (floats(&[8], |i, w| if i == 5 { 2.0 * w[i] } else { w[i] }), "* want"),
        (case(Dtype::I32, &[8], |i, w| w[i] + if i == 5 { 2.0 } else { 1.0 }), "want +"),
        (case(Dtype::I32, &[8], |i, w| w[i] + f64::from(u8::from(i == 5))), "want +"),
        (floats(&[5, 5], |i, w| if i == 1 { 555.0 } else { w[i % 5 * 5 + i / 5] }), "transposed"),
        (floats(&[5, 4], |i, w| w[19 - i]), "transposed"),
        // Rounding errors have no pattern.
        (floats(&[64], |i, w| w[i] * (1.0 + 3e-6)), "want"),
    ] {
        let words = case.words();
        assert!(words.iter().all(|w| !w.contains(part)), "{part}: {words:?}");
    }
}

#[test]
fn an_element_that_passed_is_never_called_unwritten() {
    let shape = Shape::new(vec![4]).unwrap();
    let bytes: Vec<u8> = POISON.to_le_bytes().repeat(4);
    let want = [0u8; 16];
    let evidence = Evidence {
        all: true,
        dtype: Dtype::F32,
        shape: &shape,
        wrong: &[false, false, true, false],
        got: &bytes,
        want: &want,
        poison: Some(POISON),
        spaced: false,
        previous: None,
        block: None,
    };
    assert_eq!(describe(&evidence), ["element 2 was never written"]);
    assert_eq!(describe(&Evidence { poison: None, ..evidence }), ["the only wrong element is NaN", "element 2 is wrong, and no other"]);
    assert!(describe(&Evidence { wrong: &[false; 4], ..evidence }).is_empty());
}
