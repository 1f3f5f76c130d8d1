//! Solvers of the measurement's system, one per sample, folded: with g = Jᵀ Aᵀ p beside every product q = (Σ_y + A V Aᵀ) p,
//! the solution v = Σ α_i p_i comes as s = Σ α_i g_i = Jᵀ Aᵀ v, and no VJP follows the solve.

mod bicgstab;
mod cg;
mod gmres;

use crate::backend::{Backend, Shape};
use crate::ops::KrylovOps;
use crate::ops::cg::MaskedSystem;

/// Which Krylov method.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Krylov {
    /// Conjugate gradient, for a symmetric positive system: k products for k iterations.
    #[default]
    Cg,
    /// Generalised minimal residual, for any system: k products for k iterations.
    Gmres,
    /// Stabilised biconjugate gradient, for any system: 2k products for k iterations.
    Bicgstab,
}

/// A solver and when it stops.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Solver {
    /// The Krylov method.
    pub krylov: Krylov,
    /// Iterations, for every sample alike; one that has converged earlier is masked.
    pub iterations: usize,
    /// A sample has converged when its residual is at most `rtol` times the first one.
    pub rtol: f64,
}

/// What a solve leaves.
pub struct Solution<B: Backend> {
    /// (N, H, W, C) s = Σ α_i g_i.
    pub s: B::Tensor,
    /// (N, 1, 1, 1) how each sample stands: [`RUNNING`](crate::ops::cg::RUNNING) when the iterations ended first.
    pub status: B::Tensor,
}

/// (Σ_y + A V Aᵀ) v, as its parts.
pub struct System<'a, B: Backend, G, Q> {
    /// p ↦ g, of the extents of an image: Jᵀ Aᵀ p, or Aᵀ p where V takes no VJP.
    pub g: G,
    /// (p, g) ↦ q = (Σ_y + A V Aᵀ) p.
    pub q: Q,
    /// What q is made of where A is a pixel mask and V Aᵀ p is g times a number.
    pub masked: Option<MaskedSystem<'a, B>>,
}

impl<B, G, Q> System<'_, B, G, Q>
where
    B: Backend,
    G: FnMut(&B::Tensor) -> B::Tensor,
    Q: Fn(&B::Tensor, &B::Tensor) -> B::Tensor,
{
    /// p ↦ (g, q).
    fn product(&mut self, p: &B::Tensor) -> (B::Tensor, B::Tensor) {
        let g = (self.g)(p);
        let q = (self.q)(p, &g);
        (g, q)
    }
}

impl Solver {
    /// Solves `system` v = `residual` from v = 0, for every sample by itself, without a host synchronisation.
    pub fn solve<B, G, Q>(
        &self,
        backend: &B,
        residual: B::Tensor,
        image: Shape,
        mut system: System<'_, B, G, Q>,
    ) -> Solution<B>
    where
        B: KrylovOps,
        G: FnMut(&B::Tensor) -> B::Tensor,
        Q: Fn(&B::Tensor, &B::Tensor) -> B::Tensor,
    {
        let Self { krylov, iterations, rtol } = *self;
        match krylov {
            Krylov::Cg => cg::solve(backend, iterations, rtol, residual, image, system),
            Krylov::Gmres => gmres::solve(backend, iterations, rtol, residual, image, |p| system.product(p)),
            Krylov::Bicgstab => bicgstab::solve(backend, iterations, rtol, residual, image, |p| system.product(p)),
        }
    }
}
