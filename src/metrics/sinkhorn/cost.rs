//! Squared distances of all pairs.

use crate::backend::cpu::simd::{Body, Isa, Simd, dispatch};
use crate::data::Samples;
use rayon::prelude::*;

/// C_ij = ‖u_i - v_j‖², row by row.
pub struct Cost {
    /// N.
    pub rows: usize,
    /// M.
    pub cols: usize,
    /// (N, M).
    pub data: Vec<f32>,
}

impl Cost {
    /// # Shapes
    /// `u` (N, D), `v` (M, D).
    pub fn new(u: &Samples<f32>, v: &Samples<f32>) -> Self {
        let (rows, cols, d, isa) = (u.shape.n, v.shape.n, u.shape.row(), Isa::detect());
        let transposed: Vec<f32> = (0..d).flat_map(|i| v.data.iter().skip(i).step_by(d).copied()).collect();
        let mut data = vec![0.0; rows * cols];
        data.par_chunks_exact_mut(cols).zip(u.data.par_chunks_exact(d)).for_each(|(c, u)| {
            // SAFETY: the body has no pointers.
            unsafe { dispatch(isa, Distances { u, v: &transposed, c }) };
        });
        Self { rows, cols, data }
    }
    /// The largest cost.
    pub fn max(&self) -> f64 {
        f64::from(self.data.par_chunks(1 << 14).map(|c| c.iter().copied().fold(0.0, f32::max)).reduce(|| 0.0, f32::max))
    }
}

/// Squared distances from one point.
struct Distances<'a> {
    u: &'a [f32],     // (D)
    v: &'a [f32],     // (D, M)
    c: &'a mut [f32], // (M), zeros
}

impl Body for Distances<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        for (u, v) in self.u.iter().zip(self.v.chunks_exact(self.c.len())) {
            self.c.iter_mut().zip(v).for_each(|(c, v)| *c += (u - v) * (u - v));
        }
    }
}
