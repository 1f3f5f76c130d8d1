//! The folded iteration of the stabilised biconjugate gradient method (van der Vorst, 1992), one system per sample.
//!
//! As in [`super::cg`], s = Jᵀ Aᵀ v comes with the two products of an iteration, and v is never formed.

mod cuda;
mod host;

use super::Vector;
use crate::backend::{Backend, Shape};

/// Where the solves of a batch stand.
pub struct BicgstabState<B: Backend> {
    /// (N, ..) residuals, shape of the measurement.
    pub r: B::Tensor,
    /// (N, ..) search directions.
    pub p: B::Tensor,
    /// (N, ..) r̃, the first residuals.
    pub shadow: B::Tensor,
    /// (N, ..) Jᵀ Aᵀ v, shape of the image.
    pub s: B::Tensor,
    /// (N, 1, 1, 3) ρ = <r̃, r>, α, <r_0, r_0>.
    pub numbers: B::Tensor,
    /// (N, 1, 1, 1) as in [`super::cg`].
    pub status: B::Tensor,
}

/// Elements of a row of [`BicgstabState::numbers`].
const NUMBERS: usize = 3;

/// The scalar work of an iteration, without a host synchronisation. A sample that does not run keeps all its bits; one
/// whose α, ω or β is 0 or not finite (in f32) stops as a breakdown.
pub trait Bicgstab: Vector {
    /// r = p = r̃ = `residual`, s = 0 of extents `image`, status running, or converged where <r, r> = 0.
    fn bicgstab_start(&self, residual: Self::Tensor, image: Shape) -> BicgstabState<Self>;
    /// With g and v the products of p: α = ρ/<r̃, v>; s += α g; r -= α v; it has converged if <r, r> ≤ rtol² <r_0, r_0>.
    fn bicgstab_bi(&self, state: &mut BicgstabState<Self>, g: &Self::Tensor, v: &Self::Tensor, rtol: f64);
    /// With g and t the products of r: ω = <t, r>/<t, t>; s += ω g; r -= ω t; it has converged as above; else
    /// β = (<r̃, r>/ρ) (α/ω); p = r + β (p - ω v); ρ = <r̃, r>.
    fn bicgstab_stab(
        &self,
        state: &mut BicgstabState<Self>,
        v: &Self::Tensor,
        g: &Self::Tensor,
        t: &Self::Tensor,
        rtol: f64,
    );
}
