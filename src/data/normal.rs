//! Turns a probability into the value of a standard normal variable, the same bits on every processor.
//!
//! Constants are written with the digits that their sources print. Only + - * / and square root are used, each of which IEEE 754 rounds in one way, and none is fused.

#![allow(clippy::excessive_precision)]

/// Value of the inverse of the standard normal distribution function at `p`, 0 < p < 1.
///
/// All regions are evaluated and one is selected, so that a loop over it vectorises. `FAR` is whether `p` may be so
/// close to 0 or 1, nearer than 2^-36, that the third region is needed. Relative error about 1e-16.
///
/// *Source*: Wichura, algorithm AS 241 (PPND16), Applied Statistics 37 (1988).
#[inline(always)]
pub(super) fn inverse<const FAR: bool>(p: f64) -> f64 {
    let q = p - 0.5;
    let central = q.abs() <= 0.425;
    let near = if q < 0.0 { p } else { 1.0 - p };
    let root = (-log(near)).sqrt();
    let far = FAR && root > 5.0;

    let r = 0.180625 - q * q;
    let (num, den) = (poly(&A, r), poly(&B, r));
    let t = root - 1.6;
    let (num_t, den_t) = (poly(&C, t), poly(&D, t));
    let f = root - 5.0;
    let (num_f, den_f) = (poly(&E, f), poly(&F, f));

    let num_t = if far { num_f } else { num_t };
    let den_t = if far { den_f } else { den_t };
    let sign = if q < 0.0 { -1.0 } else { 1.0 };
    let num = if central { q * num } else { sign * num_t };
    let den = if central { den } else { den_t };
    num / den
}

/// Value of a polynomial whose coefficients come highest first (Horner's scheme).
#[inline(always)]
fn poly(coefficients: &[f64; 8], x: f64) -> f64 {
    let mut sum = coefficients[0];
    for c in &coefficients[1..] {
        sum = sum * x + c;
    }
    sum
}

/// Natural logarithm of a positive normal number.
///
/// *Source*: `e_log.c` of fdlibm (Sun Microsystems, 1993), in the branchless form of musl. Error below 1 ulp.
#[inline(always)]
fn log(x: f64) -> f64 {
    // x = 2^k * (1 + f) with sqrt(1/2) < 1 + f < sqrt(2).
    let shifted = x.to_bits().wrapping_add(0x3FF0_0000_0000_0000 - 0x3FE6_A09E_0000_0000);
    let exponent = shifted >> 52;
    let scaled = f64::from_bits((shifted & 0x000F_FFFF_FFFF_FFFF) + 0x3FE6_A09E_0000_0000);
    // 2^52 + exponent, less 2^52 + 1023: the integer as a double without a conversion that AVX2 lacks.
    let k = f64::from_bits(0x4330_0000_0000_0000 | exponent) - 4_503_599_627_371_519.0;
    let f = scaled - 1.0;
    let half_square = 0.5 * f * f;
    let s = f / (2.0 + f);
    let z = s * s;
    let w = z * z;
    let t1 = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
    let t2 =
        z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
    let r = t2 + t1;
    s * (half_square + r) + k * 1.90821492927058770002e-10 - half_square + f + k * 6.93147180369123816490e-01
}

const A: [f64; 8] = [
    2.5090809287301226727e+3,
    3.3430575583588128105e+4,
    6.7265770927008700853e+4,
    4.5921953931549871457e+4,
    1.3731693765509461125e+4,
    1.9715909503065514427e+3,
    1.3314166789178437745e+2,
    3.3871328727963666080e0,
];
const B: [f64; 8] = [
    5.2264952788528545610e+3,
    2.8729085735721942674e+4,
    3.9307895800092710610e+4,
    2.1213794301586595867e+4,
    5.3941960214247511077e+3,
    6.8718700749205790830e+2,
    4.2313330701600911252e+1,
    1.0,
];
const C: [f64; 8] = [
    7.74545014278341407640e-4,
    2.27238449892691845833e-2,
    2.41780725177450611770e-1,
    1.27045825245236838258e0,
    3.64784832476320460504e0,
    5.76949722146069140550e0,
    4.63033784615654529590e0,
    1.42343711074968357734e0,
];
const D: [f64; 8] = [
    1.05075007164441684324e-9,
    5.47593808499534494600e-4,
    1.51986665636164571966e-2,
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
];
const E: [f64; 8] = [
    2.01033439929228813265e-7,
    2.71155556874348757815e-5,
    1.24266094738807843860e-3,
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
    6.65790464350110377720e0,
];
const F: [f64; 8] = [
    2.04426310338993978564e-15,
    1.42151175831644588870e-7,
    1.84631831751005468180e-5,
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_agrees_with_libm_within_an_ulp() {
        for i in 1..200_000u32 {
            let x = f64::from(i) / 200_000.0;
            for x in [x, x * 2f64.powi(-(i as i32 % 60))] {
                let (got, want) = (log(x), libm::log(x));
                assert!(got.to_bits().abs_diff(want.to_bits()) <= 1, "{x:e}: {got:e} {want:e}");
            }
        }
    }

    #[test]
    fn known_quantiles() {
        // Wichura's own check values, and symmetry.
        for (p, want) in [(0.25, -0.6744897501960817), (0.001, -3.090232306167813), (1e-20, -9.262340089798408), (0.5, 0.0)] {
            assert!((inverse::<true>(p) - want).abs() <= 1e-15 * want.abs(), "{p}: {}", inverse::<true>(p));
        }
        for i in 1..1000u32 {
            let p = f64::from(i) / 1024.0;
            assert_eq!(inverse::<true>(p), -inverse::<false>(1.0 - p), "{p}");
        }
    }
}
