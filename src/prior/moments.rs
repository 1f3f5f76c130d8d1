//! Mean and covariance of x over the posteriors of all observations, in closed form.

use super::ppca::{self, add_covariance_product};
use super::system::Systems;
use crate::Result;
use crate::diffusion::Gaussian;
use crate::linalg::{Matrix, leading_eigenpairs};
use crate::ops::noise::Stream;
use rayon::prelude::*;
use std::ops::Range;

/// Parts that the observations are split into, each with sums of its own: as many threads help, and any number gives the
/// same bits.
const PARTS: usize = 16;
/// Posterior means whose product is taken at once.
const CHUNK: usize = 64;
/// Products with the covariance in one EM iteration at most. The subspace starts from the last iteration's, so more gain
/// little: it converges with EM itself.
const PASSES: usize = 3;
/// Relative change of the explained variance at which they end.
const TOLERANCE: f64 = 1e-7;

/// One EM iteration, exact: the Gaussian that maximises Σ_n E\[ln p(x) | y_n\] over the first `count` observations, the expectation
/// under the Gaussian of `systems`. It is the PPCA of
///
/// μ' = Σ_n E\[x | y_n\] / N, S = Σ_n (V\[x | y_n\] + (E\[x | y_n\] - μ')(E\[x | y_n\] - μ')ᵀ) / N,
///
/// what PPCA on infinitely many draws would give. Its evidence is never lower: the subspace iteration starts from the
/// present U, no Ritz value falls in it, and so neither does the maximum over what is left.
pub(super) fn update(systems: &Systems<'_>, count: usize, rank: usize, floor: f64, stream: Stream) -> Result<Gaussian> {
    let gaussian = systems.gaussian;
    let d = gaussian.mean().len();
    let Means { mut mean, variance } = means(systems, count)?;
    let product = |v: &Matrix| covariance_product(systems, count, &mean, v);
    let start = with_factor(gaussian, ppca::random_basis(ppca::subspace(rank, d), d, stream));
    let eigen = leading_eigenpairs(product, start, rank, TOLERANCE, PASSES)?;
    mean.iter_mut().zip(gaussian.mean()).for_each(|(shift, mean)| *shift += mean);
    ppca::closed_form(mean, &eigen, variance, rank, floor)
}

/// What the posterior means add up to.
struct Means {
    /// μ' - μ.
    mean: Vec<f64>,
    /// tr S.
    variance: f64,
}

fn means(systems: &Systems<'_>, count: usize) -> Result<Means> {
    let d = systems.gaussian.mean().len();
    let parts = each_part(count, |range| {
        let (mut sum, mut squares) = (vec![0.0; d], 0.0);
        for n in range {
            let system = systems.of(n)?;
            let shift = system.gain(&systems.residual(n, &*system));
            squares += shift.iter().map(|x| x * x).sum::<f64>();
            if systems.shared().is_none() {
                squares += system.variance();
            }
            sum.iter_mut().zip(shift).for_each(|(sum, x)| *sum += x);
        }
        Ok((sum, squares))
    })?;
    let (mut mean, mut squares) = (vec![0.0; d], 0.0);
    for (part, part_squares) in parts {
        mean.iter_mut().zip(part).for_each(|(mean, x)| *mean += x / count as f64);
        squares += part_squares;
    }
    let common = systems.shared().map_or(0.0, |system| system.variance());
    let variance = common + squares / count as f64 - mean.iter().map(|x| x * x).sum::<f64>();
    Ok(Means { mean, variance })
}

/// V S for V (L, D); `mean` is μ' - μ.
fn covariance_product(systems: &Systems<'_>, count: usize, mean: &[f64], v: &Matrix) -> Result<Matrix> {
    let d = mean.len();
    let parts = each_part(count, |range| {
        let mut product = Matrix::zeros(v.rows(), d);
        for first in range.clone().step_by(CHUNK) {
            let mut means = Matrix::zeros(CHUNK.min(range.end - first), d);
            for i in 0..means.rows() {
                let system = systems.of(first + i)?;
                let shift = system.gain(&systems.residual(first + i, &*system));
                means.row_mut(i).iter_mut().zip(shift).zip(mean).for_each(|((m, x), mean)| *m = x - mean);
                if systems.shared().is_none() {
                    system.add_covariance_product(v, &mut product);
                }
            }
            add_covariance_product(&means, v, &mut product);
        }
        Ok(product)
    })?;
    let mut product = Matrix::zeros(v.rows(), d);
    for part in parts {
        product.as_mut_slice().iter_mut().zip(part.as_slice()).for_each(|(p, x)| *p += x / count as f64);
    }
    if let Some(system) = systems.shared() {
        system.add_covariance_product(v, &mut product);
    }
    Ok(product)
}

/// `f` of each part of 0 .. `count`, in parallel, the results in order.
fn each_part<T: Send>(count: usize, f: impl Fn(Range<usize>) -> Result<T> + Sync) -> Result<Vec<T>> {
    let part = |p: usize| p * count / PARTS..(p + 1) * count / PARTS;
    (0..PARTS).into_par_iter().map(|p| f(part(p))).collect()
}

/// `basis`, its first rows replaced by the columns of U.
fn with_factor(gaussian: &Gaussian, mut basis: Matrix) -> Matrix {
    let factor = gaussian.factor();
    for r in 0..factor.cols().min(basis.rows()) {
        basis.row_mut(r).iter_mut().enumerate().for_each(|(i, v)| *v = factor[(i, r)]);
    }
    basis
}
