//! The folded conjugate gradient iteration (Hestenes and Stiefel, 1952), one system per sample.
//!
//! Every iterate of CG on (Σ_y + σ² A Jᵀ Aᵀ) v = r_0 is v = Σ α_i p_i, and each iteration computes g_i = Jᵀ Aᵀ p_i anyway.
//! So Jᵀ Aᵀ v = Σ α_i g_i =: s comes without a further VJP, and v itself is never formed.
//!
//! J of a network is neither exactly symmetric nor exactly positive, and a direction along which its curvature <p, q> happens
//! to be next to 0 would get an α without bound. A symmetric positive system has <r, q> = <p, q> > 0, because p - r is conjugate to
//! p. So a sample for which either is not positive stops with what it has: <p, q> ≤ 0 is no curvature, and with <r, q> ≤ 0 a step
//! along p only increases the residual. Elsewhere this is the textbook's iteration, whatever the system's condition.

mod cuda;
mod host;

use super::{Mask, Vector};
use crate::backend::Backend;

/// Where the solves of a batch stand.
pub struct CgState<B: Backend> {
    /// (N, ..) residuals, shape of the measurement.
    pub r: B::Tensor,
    /// (N, ..) search directions.
    pub p: B::Tensor,
    /// (N, ..) Σ α_i g_i, shape of the image.
    pub s: B::Tensor,
    /// (N, 1, 1, 1) <r, r>.
    pub rr: B::Tensor,
    /// (N, 1, 1, 1) <r, r> at the start.
    pub rr_start: B::Tensor,
    /// (N, 1, 1, 1) [`RUNNING`], [`CONVERGED`] or [`BREAKDOWN`].
    pub status: B::Tensor,
}

/// The sample still iterates.
pub const RUNNING: f64 = 0.0;
/// <r, r> ≤ rtol² <r_0, r_0>: from then on α = 0.
pub const CONVERGED: f64 = 1.0;
/// <p, q> or <r, q> was not positive and finite before convergence: the sample stopped there.
pub const BREAKDOWN: f64 = 2.0;
/// The number of different statuses.
pub const STATUSES: usize = 3;

/// The measurement's system where A is a pixel mask: (Σ_y + σ² mask J mask) v, σ² or whatever stands for it.
pub struct MaskedSystem<'a, B: Backend> {
    /// (R, H, W, 1).
    pub mask: &'a B::Tensor,
    /// (R, 1, 1, 1) variance of the noise.
    pub cov_y: &'a B::Tensor,
    /// (R, 1, 1, 1) σ².
    pub variance: &'a B::Tensor,
}

/// The scalar work of an iteration, without a host synchronisation.
pub trait ConjugateGradient: Mask + Vector {
    /// r = p = `residual`, s = 0 of extents `image`, status [`RUNNING`], or [`CONVERGED`] where <r, r> = 0.
    fn cg_start(&self, residual: Self::Tensor, image: crate::backend::Shape) -> CgState<Self>;
    /// For each running sample, with q = Σ_y p + σ² A g: α = <r, r>/<p, q>; s += α g; r -= α q; β = <r, r>'/<r, r>;
    /// p = r + β p; then it has converged if <r, r>' ≤ rtol² <r_0, r_0>. A sample that does not run keeps all its bits.
    fn cg_update(&self, state: &mut CgState<Self>, g: &Self::Tensor, q: &Self::Tensor, rtol: f64);
    /// [`ConjugateGradient::cg_update`] with q = cov_y p + variance mask · g.
    fn cg_update_masked(&self, state: &mut CgState<Self>, g: &Self::Tensor, system: &MaskedSystem<Self>, rtol: f64) {
        let MaskedSystem { mask, cov_y, variance } = system;
        let mut q = self.row_scale(&state.p, cov_y);
        self.add_assign(&mut q, &self.mask_apply(mask, &self.row_scale(g, variance)));
        self.cg_update(state, g, &q, rtol);
    }
    /// tally\[n, status_n\] += 1, for `tally` (N, 1, 1, [`STATUSES`]): how the solves of each sample ended, over many solves.
    fn cg_tally(&self, tally: &mut Self::Tensor, status: &Self::Tensor);
}
