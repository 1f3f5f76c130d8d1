//! Generalised minimal residual (Saad and Schultz, 1986): the v in the Krylov space with the least residual, by Arnoldi's
//! process and the op [`LeastSquares`].

use super::Solution;
use crate::backend::Shape;
use crate::ops::{LeastSquares, Vector};

/// See [`super::Solver::solve`].
pub(super) fn solve<B: LeastSquares + Vector>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: impl FnMut(&B::Tensor) -> (B::Tensor, B::Tensor),
) -> Solution<B> {
    let rr = backend.row_dot(&residual, &residual);
    let mut fit = backend.least_squares_start(&rr, iterations);
    let mut basis = vec![backend.row_normalize(&residual, &rr)];
    let mut images = Vec::with_capacity(iterations); // g of every basis vector
    for j in 0..iterations {
        let (g, mut w) = system(&basis[j]);
        images.push(g);
        let mut column = Vec::with_capacity(j + 1);
        for v in &basis {
            let h = backend.row_dot(&w, v);
            backend.row_axpy(&mut w, -1.0, &h, v);
            column.push(h);
        }
        let ww = backend.row_dot(&w, &w);
        backend.least_squares_push(&mut fit, &column, &ww, rtol);
        basis.push(backend.row_normalize(&w, &ww));
    }
    let mut s = backend.zeros(image);
    for (y, g) in backend.least_squares_solution(&fit).iter().zip(&images) {
        backend.row_axpy(&mut s, 1.0, y, g);
    }
    Solution { s, status: fit.status }
}
