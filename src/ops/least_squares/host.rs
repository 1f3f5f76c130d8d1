//! least_squares: one generic form for the host backends.

use super::{COLUMNS, Layout, LeastSquares, LeastSquaresState};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};
use crate::ops::cg::{BREAKDOWN, CONVERGED, RUNNING};

impl<B: HostBackend> LeastSquares for B {
    fn least_squares_start(&self, square: &Self::Tensor, columns: usize) -> LeastSquaresState<Self> {
        assert!(columns <= COLUMNS, "least squares of {columns} columns");
        let (n, at) = (square.shape().n, Layout::new(columns));
        let (mut numbers, mut status) = (self.zeros(Shape::rows(n, at.len())), self.alloc(Shape::rows(n, 1)));
        for i in 0..n {
            let beta = B::Elem::of(square[i].f64().sqrt());
            let row = numbers.row_mut(i);
            (row[at.rhs], row[at.beta]) = (beta, beta);
            status[i] = B::Elem::of(match beta.f64() {
                0.0 => CONVERGED,
                beta if beta.is_finite() => RUNNING,
                _ => BREAKDOWN,
            });
        }
        LeastSquaresState { numbers, status, columns }
    }

    fn least_squares_push(
        &self,
        state: &mut LeastSquaresState<Self>,
        column: &[Self::Tensor],
        square: &Self::Tensor,
        rtol: f64,
    ) {
        let (j, k, at) = (column.len() - 1, state.columns, Layout::new(state.columns));
        for n in (0..square.len()).filter(|&n| state.status[n].f64() == RUNNING).collect::<Vec<_>>() {
            let x = state.numbers.row_mut(n);
            let mut above = column[0][n].f64();
            let mut finite = above.is_finite();
            for i in 0..j {
                let (cos, sin, below) = (x[at.cos + i].f64(), x[at.sin + i].f64(), column[i + 1][n].f64());
                x[j * k + i] = B::Elem::of(cos * above + sin * below);
                above = cos * below - sin * above;
                finite &= below.is_finite();
            }
            let last = square[n].f64().sqrt();
            let pivot = above.hypot(last);
            if !(finite && pivot > 0.0 && pivot.is_finite()) {
                state.status[n] = B::Elem::of(BREAKDOWN);
                continue;
            }
            let (cos, sin, rhs) = (above / pivot, last / pivot, x[at.rhs + j].f64());
            x[j * k + j] = B::Elem::of(pivot);
            (x[at.cos + j], x[at.sin + j]) = (B::Elem::of(cos), B::Elem::of(sin));
            (x[at.rhs + j], x[at.rhs + j + 1]) = (B::Elem::of(cos * rhs), B::Elem::of(-sin * rhs));
            x[at.count] = B::Elem::of((j + 1) as f64);
            if (sin * rhs).abs() <= rtol * x[at.beta].f64() {
                state.status[n] = B::Elem::of(CONVERGED);
            }
        }
    }

    fn least_squares_solution(&self, state: &LeastSquaresState<Self>) -> Vec<Self::Tensor> {
        let (n, k, at) = (state.status.len(), state.columns, Layout::new(state.columns));
        let mut y: Vec<_> = (0..k).map(|_| self.zeros(Shape::rows(n, 1))).collect();
        for n in 0..n {
            let x = state.numbers.row(n);
            let count = x[at.count].f64() as usize;
            for i in (0..count).rev() {
                let known: f64 = (i + 1..count).map(|j| x[j * k + i].f64() * y[j][n].f64()).sum();
                y[i][n] = B::Elem::of((x[at.rhs + i].f64() - known) / x[i * k + i].f64());
            }
        }
        y
    }
}
