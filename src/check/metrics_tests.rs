//! Metrics against what arithmetic by hand gives, at the edges of f64 and for special values.

use super::*;

fn sums(got: &[f64], want: &[f64], nan_equal: bool) -> Sums {
    let bytes: Vec<u8> = got.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut sums = Sums::default();
    sums.add(Dtype::F64, &bytes, Block::Float(want), nan_equal);
    sums
}

fn values(got: &[f64], want: &[f64]) -> [f64; 3] {
    let sums = sums(got, want, false);
    [Metric::RelL2, Metric::MaxAbs, Metric::MinCosine].map(|metric| sums.value(metric, None))
}

#[test]
fn metrics_are_those_of_the_formulas() {
    for (got, want, rel_l2, max_abs, cosine) in [
        (&[3.0, 4.0][..], &[3.0, 4.0][..], 0.0, 0.0, 1.0),
        (&[3.0, 5.0], &[3.0, 4.0], 0.2, 1.0, 29.0 / (34f64.sqrt() * 5.0)),
        (&[-3.0, -4.0], &[3.0, 4.0], 2.0, 8.0, -1.0),
        (&[4.0, -3.0], &[3.0, 4.0], 2f64.sqrt(), 7.0, 0.0),
        (&[0.0, 0.0], &[3.0, 4.0], 1.0, 4.0, 0.0),
        (&[0.0, 0.0], &[0.0, 0.0], 0.0, 0.0, 1.0),
        (&[0.0, 1e-300], &[0.0, 0.0], f64::INFINITY, 1e-300, 0.0),
    ] {
        let found = values(got, want);
        for (found, want) in found.into_iter().zip([rel_l2, max_abs, cosine]) {
            assert!(found == want || (found - want).abs() < 1e-15, "{got:?} {want:?}: {found}");
        }
    }
}

/// Squares of these overflow, or vanish, in f64.
#[test]
fn nothing_overflows_or_vanishes() {
    for scale in [1e-320, 1e-200, 1e-160, 1.0, 1e160, 1e200, 1e307] {
        let found = values(&[3.0 * scale, 5.0 * scale], &[3.0 * scale, 4.0 * scale]);
        let near = |a: f64, b: f64| (a - b).abs() < if scale < 1e-310 { 1e-3 } else { 1e-14 };
        assert!(near(found[0], 0.2), "{scale}: {found:?}");
        assert!(near(found[2], 29.0 / (34f64.sqrt() * 5.0)), "{scale}: {found:?}");
    }
    // Far below the expectation, and still not zero.
    assert!((values(&[1.0, 1e-200], &[1.0, 0.0])[0] / 1e-200 - 1.0).abs() < 1e-12);
    // Blocks of different magnitudes.
    let (mut got, mut want) = (vec![1e-200; 5000], vec![1e-200; 5000]);
    (got[0], want[0], got[4999]) = (1.0, 1.0, 3e-200);
    assert!((values(&got, &want)[0] / 2e-200 - 1.0).abs() < 1e-12);
    assert_eq!(values(&[f64::MAX], &[f64::MIN])[1], f64::MAX);
}

#[test]
fn nan_and_lone_infinities_are_within_no_limit() {
    let inf = f64::INFINITY;
    for (got, want) in [(f64::NAN, 1.0), (1.0, f64::NAN), (f64::NAN, f64::NAN), (inf, 1.0), (1.0, inf), (inf, -inf)] {
        let found = values(&[1.0, got], &[1.0, want]);
        assert!(found.iter().all(|x| x.is_nan()), "{got} {want}: {found:?}");
    }
    // A matched infinity is no licence for the others.
    let found = values(&[inf, 3.0, 5.0], &[inf, 3.0, 4.0]);
    assert!((found[0] - 0.2).abs() < 1e-15 && found[1] == 1.0);
    let nan = sums(&[f64::NAN, 3.0, 5.0], &[f64::NAN, 3.0, 4.0], true);
    assert!((nan.value(Metric::RelL2, None) - 0.2).abs() < 1e-15);
    assert!(sums(&[f64::NAN, 3.0], &[1.0, 3.0], true).value(Metric::MaxAbs, None).is_nan());
    for metric in [Metric::RelL2, Metric::MaxAbs, Metric::MinCosine] {
        assert!(!Reached { metric, value: f64::NAN, limit: metric.best() }.passes());
        assert!(metric.worse(f64::NAN, 0.5).is_nan() && metric.worse(0.5, f64::NAN).is_nan());
    }
}

#[test]
fn an_expectation_of_zeros_has_atol_alone() {
    let sums = sums(&[3e-7, 4e-7], &[0.0, 0.0], false);
    assert_eq!(sums.value(Metric::RelL2, Some(5.1e-7)), 0.0);
    assert_eq!(sums.value(Metric::RelL2, Some(4.9e-7)), f64::INFINITY);
    assert_eq!(sums.value(Metric::RelL2, None), f64::INFINITY);
}

#[test]
fn sums_do_not_depend_on_how_blocks_come() {
    let got: Vec<f64> = (0..5000).map(|i| (f64::from(i) * 0.37).sin() * 1e3).collect();
    let want: Vec<f64> = got.iter().map(|x| x * (1.0 + 1e-9)).collect();
    let whole = sums(&got, &want, false);
    let mut parts = Sums::default();
    for at in (0..5000).step_by(BLOCK) {
        let to = (at + BLOCK).min(5000);
        parts.merge(&sums(&got[at..to], &want[at..to], false));
    }
    assert_eq!(whole, parts);
    assert!((whole.value(Metric::RelL2, None) - 1e-9).abs() < 1e-16);
}

#[test]
fn integers_differ_exactly() {
    let big = (1i64 << 62) + 1;
    let mut sums = Sums::default();
    sums.add(Dtype::I64, &big.to_le_bytes(), Block::Int(&[i128::from(big) - 1]), false);
    assert_eq!(sums.value(Metric::MaxAbs, None), 1.0);
    let mut sums = Sums::default();
    sums.add(Dtype::U8, &[3, 5], Block::Float(&[3.0, 4.0]), false);
    assert_eq!(sums.value(Metric::RelL2, None), 0.2);
    let mut sums = Sums::default();
    sums.add(Dtype::F32, &1.5f32.to_le_bytes(), Block::Int(&[1]), false);
    assert_eq!(sums.value(Metric::MaxAbs, None), 0.5);
}
