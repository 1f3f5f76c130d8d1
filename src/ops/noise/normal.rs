//! Box-Muller in f64 without a mathematics library.
//!
//! Additions, multiplications, divisions and square roots are the same on every machine, a library's logarithm and
//! cosine are not: written out, the noise of a run has the same bits on every host.

use std::f64::consts::{FRAC_1_SQRT_2, LN_2, TAU};

/// Two independent standard normal numbers from two random words: √(-2 ln u) (cos 2π v, sin 2π v) with u in (0, 1],
/// v in [0, 1). The largest possible is √(64 ln 2) = 6.66.
#[inline]
pub(super) fn box_muller(u: u32, v: u32) -> [f64; 2] {
    let r = (-2.0 * ln_fraction(u)).sqrt();
    let (sin, cos) = sin_cos_turn(v);
    [r * cos, r * sin]
}

/// ln((word + 1) / 2³²), relative error below 1e-15.
#[inline]
fn ln_fraction(word: u32) -> f64 {
    let bits = (f64::from(word) + 1.0).to_bits();
    // (word + 1) / 2³² = m 2^e with m in [1, 2), then in [√½, √2) so that nothing cancels near 1
    let (m, e) =
        (f64::from_bits(bits & 0x000f_ffff_ffff_ffff | 0x3ff0_0000_0000_0000), (bits >> 52) as i32 - 1023 - 32);
    let halve = m > 2.0 * FRAC_1_SQRT_2;
    let (m, e) = if halve { (0.5 * m, e + 1) } else { (m, e) };
    // ln m = 2 artanh s, |s| < 0.172: the first term left out is 2 s²³/23 < 3e-19
    let s = (m - 1.0) / (m + 1.0);
    let s2 = s * s;
    let series = (0..=10).rev().fold(0.0, |sum, k| sum * s2 + 2.0 / f64::from(2 * k + 1));
    f64::from(e) * LN_2 + s * series
}

/// (sin, cos) of 2π word / 2³², absolute error below 1e-15.
#[inline]
fn sin_cos_turn(word: u32) -> (f64, f64) {
    // the nearest multiple of a quarter turn, and what is left: within an eighth turn, exactly
    let quadrant = (word >> 29).div_ceil(2);
    let left = word.wrapping_sub(quadrant << 30) as i32;
    let x = f64::from(left) * (TAU / 4_294_967_296.0);
    let x2 = x * x;
    // |x| ≤ π/4: the first terms left out are x¹⁷/17! < 5e-17 and x¹⁸/18! < 3e-18
    let sin = x * (1..=7).rev().fold(1.0, |sum, k| 1.0 - sum * x2 / f64::from(2 * k * (2 * k + 1)));
    let cos = (1..=8).rev().fold(1.0, |sum, k| 1.0 - sum * x2 / f64::from(2 * k * (2 * k - 1)));
    match quadrant % 4 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The corners, and words spread over the range.
    fn words() -> impl Iterator<Item = u32> {
        let corners = (0..33).flat_map(|k| {
            let power = (1u64 << k) as u32;
            [power.wrapping_sub(2), power.wrapping_sub(1), power, power.wrapping_add(1)]
        });
        corners.chain((0..10_000u32).map(|i| i.wrapping_mul(0x9e37_79b9)))
    }

    #[test]
    fn logarithm_is_that_of_the_library() {
        for word in words() {
            let (found, expected) = (ln_fraction(word), ((f64::from(word) + 1.0) / 4_294_967_296.0).ln());
            // ten roundings of 1.1e-16
            assert!((found - expected).abs() <= 1e-15 * expected.abs(), "{word}: {found} {expected}");
        }
    }

    #[test]
    fn sine_and_cosine_are_those_of_the_library() {
        for word in words() {
            let (sin, cos) = sin_cos_turn(word);
            let (expected_sin, expected_cos) = (TAU * (f64::from(word) / 4_294_967_296.0)).sin_cos();
            // the library's argument itself is rounded: 2π · 1.1e-16
            assert!((sin - expected_sin).abs() < 1e-15 && (cos - expected_cos).abs() < 1e-15, "{word}: {sin} {cos}");
        }
    }
}
