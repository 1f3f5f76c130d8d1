//! Probabilistic principal component analysis in closed form.

use super::Rows;
use crate::diffusion::Gaussian;
use crate::linalg::{Eigen, Matrix, View, leading_eigenpairs};
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Vectors that the subspace has beyond the rank: they take up what would slow the wanted ones down.
const OVERSAMPLING: usize = 10;
/// Passes over the rows at most; spectra of images need about five.
const PASSES: usize = 30;
/// Relative change of the explained variance at which they end.
const TOLERANCE: f64 = 1e-7;
/// Rows in memory at a time.
const CHUNK: usize = 512;
/// Rows of a product that one task computes: a multiple of the matrix kernel's tile.
const BLOCK: usize = 16;

/// The maximum-likelihood Gaussian N(μ, δ I + U Uᵀ) of rows x_n, with U of `rank` columns: μ and S = Σ (x_n - μ)(x_n - μ)ᵀ / N
/// are the rows' mean and covariance, λ_i and v_i the eigenpairs of S, and
///
/// δ = max(`floor`, Σ_{i > R} λ_i / (D - R)), u_i = v_i √max(λ_i - δ, 0).
///
/// With R = D nothing is left over for δ, which is `floor`. The eigenvectors come from randomised subspace iteration over
/// the streamed rows: no D x D matrix is formed. `stream` gives its seed and EM iteration.
///
/// # Errors
/// When the rank is not in 1 ..= D, there are not more rows than the rank, a row is not finite or cannot be read.
///
/// # Reference
/// Tipping and Bishop, *Probabilistic principal component analysis*, JRSS B 1999, equations 7 and 8.
pub fn ppca(rows: &mut dyn Rows, rank: usize, floor: f64, stream: Stream) -> Result<Gaussian> {
    let (count, d) = (rows.count(), rows.width());
    check_rank(rank, d)?;
    if count <= rank {
        return Err(Error::mismatch("draws", format_args!("more than the rank, {rank}"), count));
    }
    let mean = mean(rows)?;
    let mut variance = 0.0;
    each_chunk(rows, &mean, |x| variance += x.squared_norm() / count as f64)?;
    let product = |v: &Matrix| {
        let mut product = Matrix::zeros(v.rows(), d);
        each_chunk(rows, &mean, |x| add_covariance_product(x, v, &mut product))?;
        product.as_mut_slice().iter_mut().for_each(|s| *s /= count as f64);
        Ok(product)
    };
    let start = random_basis(subspace(rank, d), d, stream);
    let eigen = leading_eigenpairs(product, start, rank, TOLERANCE, PASSES)?;
    closed_form(mean, &eigen, variance, rank, floor)
}

/// Refuses a rank that no covariance in D dimensions has.
pub(super) fn check_rank(rank: usize, d: usize) -> Result<()> {
    if (1..=d).contains(&rank) {
        return Ok(());
    }
    Err(Error::mismatch("rank", format_args!("1 to {d}, the elements of a sample"), rank))
}

/// Vectors of the subspace in which `rank` eigenvectors are sought.
pub(super) fn subspace(rank: usize, d: usize) -> usize {
    (rank + OVERSAMPLING).min(d)
}

/// The Gaussian with the given mean that is most likely for a covariance of trace `variance` with the leading eigenpairs `eigen`.
///
/// δ pools what is left over. A value below it, which only a subspace that has not converged gives, is pooled too: u = 0.
pub(super) fn closed_form(mean: Vec<f64>, eigen: &Eigen, variance: f64, rank: usize, floor: f64) -> Result<Gaussian> {
    let d = mean.len();
    let delta = |kept: usize| {
        let left = variance - eigen.values[..kept].iter().sum::<f64>();
        if kept < d { (left / (d - kept) as f64).max(floor) } else { floor }
    };
    let kept = (1..=rank).rev().find(|&kept| eigen.values[kept - 1] >= delta(kept)).unwrap_or(0);
    let delta = delta(kept);
    let scale = |r: usize| if r < kept { (eigen.values[r] - delta).sqrt() } else { 0.0 };
    let factor = (0..d * rank).map(|k| scale(k % rank) * eigen.vectors[(k % rank, k / rank)]).collect();
    Gaussian::new(mean, vec![delta; d], factor)
}

/// Standard normal numbers (L, D): a basis in which every direction has its part.
pub(super) fn random_basis(rows: usize, d: usize, stream: Stream) -> Matrix {
    let mut basis = Matrix::zeros(rows, d);
    for row in 0..rows {
        for (block, v) in basis.row_mut(row).chunks_mut(4).enumerate() {
            let normals = Stream { purpose: Purpose::Subspace, ..stream }.normals(row as u32, block as u32);
            v.copy_from_slice(&normals[..v.len()]);
        }
    }
    basis
}

/// The mean of all rows, added up in their order.
fn mean(rows: &mut dyn Rows) -> Result<Vec<f64>> {
    let (count, d) = (rows.count(), rows.width());
    let (mut sum, mut row, mut bad) = (vec![0.0; d], 0, None);
    each_chunk(rows, &vec![0.0; d], |x| {
        for i in 0..x.rows() {
            sum.iter_mut().zip(x.row(i)).for_each(|(sum, x)| *sum += x);
            bad = bad.or_else(|| x.row(i).iter().any(|x| !x.is_finite()).then_some(row));
            row += 1;
        }
    })?;
    if let Some(row) = bad {
        return Err(Error::NonFinite { place: format!("draw {row} of those that a Gaussian prior is fitted to") });
    }
    Ok(sum.into_iter().map(|sum| sum / count as f64).collect())
}

/// Hands `f` the rows, `mean` subtracted, some at a time.
fn each_chunk(rows: &mut dyn Rows, mean: &[f64], mut f: impl FnMut(&Matrix)) -> Result<()> {
    let (count, d) = (rows.count(), mean.len());
    let mut chunk = vec![0f32; CHUNK.min(count) * d];
    for first in (0..count).step_by(CHUNK) {
        let len = CHUNK.min(count - first);
        rows.read(first, &mut chunk[..len * d])?;
        f(&Matrix::from_fn(len, d, |i, j| f64::from(chunk[i * d + j]) - mean[j]));
    }
    Ok(())
}

/// `product` += V Xᵀ X, for X (n, D) and V (L, D); in parallel over rows of V, whose sums no partition of them changes.
pub(super) fn add_covariance_product(x: &Matrix, v: &Matrix, product: &mut Matrix) {
    let d = x.cols();
    product.as_mut_slice().par_chunks_mut(BLOCK * d).enumerate().for_each(|(block, out)| {
        let rows = block * BLOCK..block * BLOCK + out.len() / d;
        let mut along = Matrix::zeros(rows.len(), x.rows());
        along.add_product(1.0, View::rows_of(v, rows), View::of(x).transpose());
        let mut sum = Matrix::zeros(out.len() / d, d);
        sum.add_product(1.0, View::of(&along), View::of(x));
        out.iter_mut().zip(sum.as_slice()).for_each(|(out, sum)| *out += sum);
    });
}
