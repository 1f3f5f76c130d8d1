//! Conjugate gradient (Hestenes and Stiefel, 1952), through the op [`ConjugateGradient`].

use super::Solution;
use crate::backend::Shape;
use crate::ops::ConjugateGradient;

/// See [`super::Solver::solve`].
pub(super) fn solve<B: ConjugateGradient>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: impl FnMut(&B::Tensor) -> (B::Tensor, B::Tensor),
) -> Solution<B> {
    let mut state = backend.cg_start(residual, image);
    for _ in 0..iterations {
        let (g, q) = system(&state.p);
        backend.cg_update(&mut state, &g, &q, rtol);
    }
    Solution { s: state.s, status: state.status }
}
