//! Stabilised biconjugate gradient (van der Vorst, 1992), through the op [`Bicgstab`].

use super::Solution;
use crate::backend::Shape;
use crate::ops::Bicgstab;

/// See [`super::Solver::solve`].
pub(super) fn solve<B: Bicgstab>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: impl FnMut(&B::Tensor) -> (B::Tensor, B::Tensor),
) -> Solution<B> {
    let mut state = backend.bicgstab_start(residual, image);
    for _ in 0..iterations {
        let (g, v) = system(&state.p);
        backend.bicgstab_bi(&mut state, &g, &v, rtol);
        let (g, t) = system(&state.r);
        backend.bicgstab_stab(&mut state, &v, &g, &t, rtol);
    }
    Solution { s: state.s, status: state.status }
}
