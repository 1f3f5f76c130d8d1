//! gated_residual: the fast CPU form.

use super::GatedResidual;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::lanes::{PIECE, get, put};
use crate::backend::cpu::simd::{Body, Simd, dispatch};
use crate::backend::{Array, Backend};
use crate::ops::channel_norm::Modulation;
use rayon::prelude::*;

/// A piece of one sample: y = r x + c r branch.
struct Forward<'a> {
    x: &'a [f32],
    branch: &'a [f32],
    gates: (&'a [f32], &'a [f32]), // r, c r: (C) each
    y: &'a mut [f32],
}

impl Body for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (r, cr) = self.gates;
        let pixels = self.x.chunks_exact(r.len()).zip(self.branch.chunks_exact(r.len()));
        for (y, (x, branch)) in self.y.chunks_exact_mut(r.len()).zip(pixels) {
            for i in (0..r.len()).step_by(S::W) {
                // SAFETY: `dispatch` has checked the instruction set.
                unsafe {
                    let x = S::mul(get::<S>(r, i, 0.0), get::<S>(x, i, 0.0));
                    put::<S>(y, i, S::fma(get::<S>(cr, i, 0.0), get::<S>(branch, i, 0.0), x));
                }
            }
        }
    }
}

/// A piece of one sample: y = gate x.
struct Scale<'a> {
    x: &'a [f32],
    gate: &'a [f32], // (C)
    y: &'a mut [f32],
}

impl Body for Scale<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let c = self.gate.len();
        for (y, x) in self.y.chunks_exact_mut(c).zip(self.x.chunks_exact(c)) {
            for i in (0..c).step_by(S::W) {
                // SAFETY: `dispatch` has checked the instruction set.
                unsafe { put::<S>(y, i, S::mul(get::<S>(self.gate, i, 0.0), get::<S>(x, i, 0.0))) };
            }
        }
    }
}

/// One sample: dc += Σ_pixels dy (r - c² r³) branch - dy c r³ x, where r - c² r³ = r³.
struct VjpParams<'a> {
    x: &'a [f32],
    branch: &'a [f32],
    gates: (&'a [f32], &'a [f32]), // r, c r: (C) each
    dy: &'a [f32],
    dc: &'a mut [f32], // (C)
}

impl Body for VjpParams<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (r, cr) = self.gates;
        for (p, dy) in self.dy.chunks_exact(r.len()).enumerate() {
            let pixel = p * r.len()..(p + 1) * r.len();
            let (x, branch) = (&self.x[pixel.clone()], &self.branch[pixel]);
            for i in (0..r.len()).step_by(S::W) {
                // SAFETY: `dispatch` has checked the instruction set.
                unsafe {
                    let (r, cr) = (get::<S>(r, i, 0.0), get::<S>(cr, i, 0.0));
                    let r2 = S::mul(r, r);
                    let branch = S::mul(r, get::<S>(branch, i, 0.0));
                    let slope = S::mul(r2, S::sub(branch, S::mul(cr, get::<S>(x, i, 0.0))));
                    put::<S>(self.dc, i, S::fma(get::<S>(dy, i, 0.0), slope, get::<S>(self.dc, i, 0.0)));
                }
            }
        }
    }
}

impl Cpu {
    /// c r `dy`: the gradient of the branch alone.
    pub(crate) fn gated_residual_vjp_branch(
        &self,
        m: &Modulation<Self>,
        dy: &<Self as Backend>::Tensor,
    ) -> <Self as Backend>::Tensor {
        self.scale(m, 1, dy)
    }

    /// `dy` times r (`which` = 0) or c r (1).
    fn scale(&self, m: &Modulation<Self>, which: usize, dy: &<Self as Backend>::Tensor) -> <Self as Backend>::Tensor {
        let s = dy.shape();
        let mut y = self.alloc(s);
        let (isa, piece) = (self.isa(), (PIECE / s.c).max(1) * s.c);
        self.install(|| {
            y.par_chunks_mut(s.row()).zip(dy.par_chunks(s.row())).enumerate().for_each(|(n, (y, x))| {
                let gate = &m.gates.row_or_shared(n)[which * s.c..][..s.c];
                y.par_chunks_mut(piece).zip(x.par_chunks(piece)).for_each(|(y, x)| {
                    // SAFETY: the body has no pointers.
                    unsafe { dispatch(isa, Scale { x, gate, y }) };
                });
            });
        });
        y
    }
}

impl GatedResidual for Cpu {
    fn gates(&self, abc: &Self::Tensor) -> Self::Tensor {
        let s = abc.shape();
        let c = s.c / 3;
        let mut gates = self.alloc(s.with_c(2 * c));
        for n in 0..s.n {
            let (r, cr) = gates.row_mut(n).split_at_mut(c);
            for (i, gate) in abc.row(n)[2 * c..].iter().enumerate() {
                r[i] = 1.0 / (1.0 + gate * gate).sqrt();
                cr[i] = gate * r[i];
            }
        }
        gates
    }
    fn gated_residual_forward(&self, x: &Self::Tensor, branch: &Self::Tensor, m: &Modulation<Self>) -> Self::Tensor {
        let s = x.shape();
        assert_eq!(branch.shape(), s);
        let mut y = self.alloc(s);
        let (isa, piece) = (self.isa(), (PIECE / s.c).max(1) * s.c);
        self.install(|| {
            let samples = y.par_chunks_mut(s.row()).zip(x.par_chunks(s.row())).zip(branch.par_chunks(s.row()));
            samples.enumerate().for_each(|(n, ((y, x), branch))| {
                let gates = m.gates.row_or_shared(n).split_at(s.c);
                y.par_chunks_mut(piece).zip(x.par_chunks(piece)).zip(branch.par_chunks(piece)).for_each(
                    |((y, x), branch)| {
                        // SAFETY: the body has no pointers.
                        unsafe { dispatch(isa, Forward { x, branch, gates, y }) };
                    },
                );
            });
        });
        y
    }
    fn gated_residual_vjp(&self, m: &Modulation<Self>, dy: &Self::Tensor) -> (Self::Tensor, Self::Tensor) {
        (self.scale(m, 0, dy), self.scale(m, 1, dy))
    }
    fn gated_residual_vjp_params(
        &self,
        x: &Self::Tensor,
        branch: &Self::Tensor,
        m: &Modulation<Self>,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    ) {
        let (isa, s) = (self.isa(), x.shape());
        self.add_sample_sums(s.n, 2 * s.c..3 * s.c, dabc, |n, dc| {
            let gates = m.gates.row_or_shared(n).split_at(s.c);
            // SAFETY: the body has no pointers.
            unsafe { dispatch(isa, VjpParams { x: x.row(n), branch: branch.row(n), gates, dy: dy.row(n), dc }) };
        });
    }
}
