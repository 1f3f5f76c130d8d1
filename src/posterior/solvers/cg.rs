//! Conjugate gradient (Hestenes and Stiefel, 1952), through the op [`ConjugateGradient`].

use super::{Solution, System};
use crate::backend::Shape;
use crate::ops::ConjugateGradient;

/// See [`super::Solver::solve`].
pub(super) fn solve<B, G, Q>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: System<'_, B, G, Q>,
) -> Solution<B>
where
    B: ConjugateGradient,
    G: FnMut(&B::Tensor) -> B::Tensor,
    Q: Fn(&B::Tensor, &B::Tensor) -> B::Tensor,
{
    let mut state = backend.cg_start(residual, image);
    for _ in 0..iterations {
        match &system.masked {
            Some(masked) => {
                let g = (system.g)(&state.p);
                backend.cg_update_masked(&mut state, &g, masked, rtol);
            }
            None => {
                let (g, q) = system.product(&state.p);
                backend.cg_update(&mut state, &g, &q, rtol);
            }
        }
    }
    Solution { s: state.s, status: state.status }
}
