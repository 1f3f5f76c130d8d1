//! The one-dimensional transforms of Winograd's minimal filtering F(m, 3): y = Aᵀ ((G g) ⊙ (Bᵀ d)).
//!
//! Toom-Cook at the points of each tile; the filter transform G is applied in f64 when weights are packed, so it carries
//! the divisions, and Bᵀ, Aᵀ have small exact coefficients.
//!
//! # Reference
//! Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016; the points of F(4, 3) from Barabasz
//! et al., "Error analysis and improving the accuracy of Winograd convolution", 2020.

use crate::backend::cpu::simd::Simd;

/// The longest transform.
pub(crate) const LONGEST: usize = 6;
/// The largest tile of outputs.
pub(crate) const LARGEST: usize = 4;

/// F(m, 3), nested with itself for two dimensions.
pub(crate) trait Transform: Copy + Send + Sync + 'static {
    /// m: outputs of a tile.
    const OUTPUTS: usize;
    /// m + 2: inputs of a tile, and products per output row.
    const INPUTS: usize;

    /// G: the first `INPUTS` rows.
    fn filter() -> [[f64; 3]; LONGEST];
    /// Bᵀ d, of the first `INPUTS` entries.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn input<S: Simd>(d: &[S::V; LONGEST]) -> [S::V; LONGEST];
    /// Aᵀ m: the first `OUTPUTS` entries.
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn output<S: Simd>(m: &[S::V; LONGEST]) -> [S::V; LARGEST];
    /// A y, of the first `OUTPUTS` entries: the adjoint of [`Transform::output`].
    ///
    /// # Safety
    /// As for [`Simd`].
    unsafe fn output_adjoint<S: Simd>(y: &[S::V; LONGEST]) -> [S::V; LONGEST];
}

/// F(4, 3) at 0, 1, -1, 1/2, -2, ∞: a quarter of the multiplications, and half the error of the usual ±1, ±2.
#[derive(Clone, Copy)]
pub(crate) struct F4;

impl Transform for F4 {
    const OUTPUTS: usize = 4;
    const INPUTS: usize = 6;

    fn filter() -> [[f64; 3]; LONGEST] {
        let points = [0.0, 1.0, -1.0, 0.5, -2.0];
        let mut g = [[0.0, 0.0, 1.0]; LONGEST]; // the last row is the point ∞
        for (row, p) in g.iter_mut().zip(points) {
            let n: f64 = points.iter().filter(|q| **q != p).map(|q| p - q).product();
            *row = [1.0 / n, p / n, p * p / n];
        }
        g
    }
    #[inline(always)]
    unsafe fn input<S: Simd>(d: &[S::V; LONGEST]) -> [S::V; LONGEST] {
        // SAFETY: as for this function.
        unsafe {
            let h = S::splat(1.5);
            let e = S::sub(d[4], d[2]);
            let f = S::sub(d[3], d[1]);
            [
                S::fma(h, f, S::add(S::sub(d[0], d[2]), e)),
                S::fma(h, S::add(d[2], d[3]), S::add(e, f)),
                S::fma(h, S::sub(d[3], d[2]), S::sub(e, f)),
                S::fma(S::splat(2.0), f, e),
                S::fma(S::splat(-0.5), f, e),
                S::fma(h, e, S::sub(S::sub(d[5], d[3]), f)),
            ]
        }
    }
    #[inline(always)]
    unsafe fn output<S: Simd>(m: &[S::V; LONGEST]) -> [S::V; LARGEST] {
        // SAFETY: as for this function.
        unsafe {
            let s = S::add(m[1], m[2]);
            let t = S::sub(m[1], m[2]);
            [
                S::add(S::add(m[0], s), S::add(m[3], m[4])),
                S::fma(S::splat(0.5), m[3], S::fma(S::splat(-2.0), m[4], t)),
                S::fma(S::splat(0.25), m[3], S::fma(S::splat(4.0), m[4], s)),
                S::fma(S::splat(0.125), m[3], S::fma(S::splat(-8.0), m[4], S::add(t, m[5]))),
            ]
        }
    }
    #[inline(always)]
    unsafe fn output_adjoint<S: Simd>(y: &[S::V; LONGEST]) -> [S::V; LONGEST] {
        // SAFETY: as for this function.
        unsafe {
            let (even, odd) = (S::add(y[0], y[2]), S::add(y[1], y[3]));
            [
                y[0],
                S::add(even, odd),
                S::sub(even, odd),
                S::fma(S::splat(0.125), y[3], S::fma(S::splat(0.25), y[2], S::fma(S::splat(0.5), y[1], y[0]))),
                S::fma(S::splat(-8.0), y[3], S::fma(S::splat(4.0), y[2], S::fma(S::splat(-2.0), y[1], y[0]))),
                y[3],
            ]
        }
    }
}

/// F(2, 3) at 0, 1, -1, ∞: 4/9 of the multiplications; its packed weights are 4/9 of those of [`F4`].
#[derive(Clone, Copy)]
pub(crate) struct F2;

impl Transform for F2 {
    const OUTPUTS: usize = 2;
    const INPUTS: usize = 4;

    fn filter() -> [[f64; 3]; LONGEST] {
        [[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0], [0.0; 3], [0.0; 3]]
    }
    #[inline(always)]
    unsafe fn input<S: Simd>(d: &[S::V; LONGEST]) -> [S::V; LONGEST] {
        // SAFETY: as for this function.
        unsafe {
            let zero = S::zero();
            [S::sub(d[0], d[2]), S::add(d[1], d[2]), S::sub(d[2], d[1]), S::sub(d[1], d[3]), zero, zero]
        }
    }
    #[inline(always)]
    unsafe fn output<S: Simd>(m: &[S::V; LONGEST]) -> [S::V; LARGEST] {
        // SAFETY: as for this function.
        unsafe {
            let zero = S::zero();
            [S::add(S::add(m[0], m[1]), m[2]), S::sub(S::sub(m[1], m[2]), m[3]), zero, zero]
        }
    }
    #[inline(always)]
    unsafe fn output_adjoint<S: Simd>(y: &[S::V; LONGEST]) -> [S::V; LONGEST] {
        // SAFETY: as for this function.
        unsafe {
            let zero = S::zero();
            [y[0], S::add(y[0], y[1]), S::sub(y[0], y[1]), S::sub(zero, y[1]), zero, zero]
        }
    }
}
