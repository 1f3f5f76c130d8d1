//! Generalised minimal residual (Saad and Schultz, 1986): the v in the Krylov space with the least residual, by Arnoldi's
//! process on the device and Givens rotations on the host.

use super::{Solution, axpy, dots, scalars};
use crate::Result;
use crate::backend::Shape;
use crate::ops::Vector;
use crate::ops::cg::{BREAKDOWN, CONVERGED, RUNNING};

/// See [`super::Solver::solve`].
pub(super) fn solve<B: Vector>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: impl FnMut(&B::Tensor) -> (B::Tensor, B::Tensor),
) -> Result<Solution<B>> {
    let norms: Vec<f64> = dots(backend, &residual, &residual)?.iter().map(|rr| rr.sqrt()).collect();
    let mut samples: Vec<LeastSquares> = norms.iter().map(|norm| LeastSquares::new(*norm)).collect();
    let mut basis = vec![backend.row_scale(&residual, &scalars(backend, &inverse(&norms, &samples)))];
    let mut images = Vec::with_capacity(iterations); // g of every basis vector
    for j in 0..iterations {
        let (g, mut w) = system(&basis[j]);
        images.push(g);
        let mut columns = vec![Vec::with_capacity(j + 2); samples.len()];
        for v in &basis {
            let h = dots(backend, &w, v)?;
            axpy(backend, &mut w, -1.0, &h, v);
            columns.iter_mut().zip(&h).for_each(|(column, h)| column.push(*h));
        }
        let norms: Vec<f64> = dots(backend, &w, &w)?.iter().map(|ww| ww.sqrt()).collect();
        for ((sample, mut column), norm) in samples.iter_mut().zip(columns).zip(&norms) {
            column.push(*norm);
            sample.push(column, rtol);
        }
        basis.push(backend.row_scale(&w, &scalars(backend, &inverse(&norms, &samples))));
    }
    let coefficients: Vec<Vec<f64>> = samples.iter().map(|sample| sample.solution(iterations)).collect();
    let mut s = backend.zeros(image);
    for (j, g) in images.iter().enumerate() {
        let y: Vec<f64> = coefficients.iter().map(|y| y[j]).collect();
        axpy(backend, &mut s, 1.0, &y, g);
    }
    let status: Vec<f64> = samples.iter().map(|sample| sample.status).collect();
    Ok(Solution { s, status: scalars(backend, &status) })
}

/// 1 / norm where the sample still runs, else 0.
fn inverse(norms: &[f64], samples: &[LeastSquares]) -> Vec<f64> {
    norms.iter().zip(samples).map(|(norm, sample)| if sample.status == RUNNING { 1.0 / norm } else { 0.0 }).collect()
}

/// min ‖β e_1 - H y‖ of one sample, with the Hessenberg matrix H brought to triangular form column by column.
struct LeastSquares {
    r: Vec<Vec<f64>>,           // columns of the triangle
    rotations: Vec<(f64, f64)>, // (cos, sin)
    rhs: Vec<f64>,              // rotated β e_1; its last element is the residual's norm
    beta: f64,
    status: f64,
}

impl LeastSquares {
    fn new(beta: f64) -> Self {
        let status = match beta {
            0.0 => CONVERGED,
            _ if beta.is_finite() => RUNNING,
            _ => BREAKDOWN,
        };
        Self { r: Vec::new(), rotations: Vec::new(), rhs: vec![beta], beta, status }
    }
    /// Takes the next column of H; a singular or non-finite one stops the sample with what it has.
    fn push(&mut self, mut column: Vec<f64>, rtol: f64) {
        if self.status != RUNNING {
            return;
        }
        for (i, (cos, sin)) in self.rotations.iter().enumerate() {
            let (above, below) = (column[i], column[i + 1]);
            column[i] = cos * above + sin * below;
            column[i + 1] = cos * below - sin * above;
        }
        let j = self.rotations.len();
        let pivot = column[j].hypot(column[j + 1]);
        if !(pivot > 0.0 && column.iter().all(|h| h.is_finite())) {
            self.status = BREAKDOWN;
            return;
        }
        let (cos, sin) = (column[j] / pivot, column[j + 1] / pivot);
        column[j] = pivot;
        column.truncate(j + 1);
        let last = self.rhs[j];
        self.rhs[j] = cos * last;
        self.rhs.push(-sin * last);
        self.rotations.push((cos, sin));
        self.r.push(column);
        if self.rhs[j + 1].abs() <= rtol * self.beta {
            self.status = CONVERGED;
        }
    }
    /// y, filled with zeros up to `len`.
    fn solution(&self, len: usize) -> Vec<f64> {
        let mut y = vec![0.0; len];
        for i in (0..self.r.len()).rev() {
            let known: f64 = (i + 1..self.r.len()).map(|j| self.r[j][i] * y[j]).sum();
            y[i] = (self.rhs[i] - known) / self.r[i][i];
        }
        y
    }
}
