//! Distance between floats in units in the last place.
//!
//! *Source*: the order of IEEE 754 `totalOrder` on finite values, with -0 and +0 made one point. The
//! distance of two finite values is the number of representable values from one to the other; it is
//! infinite (`u64::MAX`) across infinity (FLT_MAX and infinity are not neighbours) and for NaN.

use super::Dtype;

/// Distance in units in the last place between two bit patterns of a dtype.
///
/// For integers and `bool` it is the absolute difference. Equal infinities have distance 0.
pub fn ulp_distance(dtype: Dtype, a: u64, b: u64) -> u64 {
    if !dtype.is_float() {
        let (a, b) = (dtype.decode(a).to_integer(), dtype.decode(b).to_integer());
        return match (a, b) {
            (Some(a), Some(b)) => u64::try_from((a - b).unsigned_abs()).unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
    }
    let (fa, fb) = (dtype.decode(a).to_f64(), dtype.decode(b).to_f64());
    if fa.is_nan() || fb.is_nan() {
        return u64::MAX;
    }
    if fa.is_infinite() || fb.is_infinite() {
        return if fa == fb { 0 } else { u64::MAX };
    }
    let width = 8 * dtype.size() as u32;
    let ordered = |bits: u64| -> i128 {
        let sign = 1u64 << (width - 1);
        let magnitude = (bits & (sign - 1)) as i128;
        if bits & sign != 0 { -magnitude } else { magnitude }
    };
    u64::try_from((ordered(a) - ordered(b)).unsigned_abs()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn f32_distance(a: f32, b: f32) -> u64 {
        ulp_distance(Dtype::F32, a.to_bits().into(), b.to_bits().into())
    }

    #[test]
    fn distances() {
        assert_eq!(f32_distance(0.0, -0.0), 0);
        assert_eq!(f32_distance(1.0, 1.0 + f32::EPSILON), 1);
        assert_eq!(f32_distance(-1e-45, 1e-45), 2);
        assert_eq!(f32_distance(f32::MAX, f32::INFINITY), u64::MAX);
        assert_eq!(f32_distance(f32::INFINITY, f32::INFINITY), 0);
        assert_eq!(f32_distance(f32::INFINITY, f32::NEG_INFINITY), u64::MAX);
        assert_eq!(f32_distance(f32::NAN, f32::NAN), u64::MAX);
        assert_eq!(ulp_distance(Dtype::F8e4m3, 0x80, 0x00), 0);
        assert_eq!(ulp_distance(Dtype::F8e4m3, 0x81, 0x7e), 127);
        assert_eq!(ulp_distance(Dtype::F8e4m3, 0x7e, 0x7f), u64::MAX);
        assert_eq!(ulp_distance(Dtype::F8e5m2, 0x7b, 0x7c), u64::MAX);
        assert_eq!(ulp_distance(Dtype::F8e5m2, 0xfc, 0xfc), 0);
        assert_eq!(ulp_distance(Dtype::I8, 0x80, 0x7f), 255);
        assert_eq!(ulp_distance(Dtype::U64, 0, u64::MAX), u64::MAX);
    }
}
