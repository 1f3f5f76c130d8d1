//! PPCA against a full eigendecomposition.

use super::oracle::{D, distance, normals, samples, stream, truth, with_threads};
use diem::data::NpyReader;
use diem::data::{Array, npy};
use diem::diffusion::Gaussian;
use diem::linalg::{Matrix, symmetric_eigen};
use diem::prior::{MemoryRows, ppca};

const FLOOR: f64 = 1e-6;

/// Rows of decaying variance in a random basis.
fn rows(count: usize, d: usize) -> Vec<f32> {
    let mix = Matrix::from_fn(d, d, |i, j| normals(d * d, 9)[i * d + j] * 0.9f64.powi(j as i32));
    (0..count).flat_map(|n| mix.apply(&normals(d, 100 + n as u32))).map(|x| 0.5 + x as f32).collect()
}

/// Tipping and Bishop's equations with all eigenpairs of the D x D covariance.
fn dense(rows: &[f32], d: usize, rank: usize) -> (Vec<f64>, f64, Matrix) {
    let n = rows.len() / d;
    let x = Matrix::from_fn(n, d, |i, j| f64::from(rows[i * d + j]));
    let mean: Vec<f64> = x.apply_transpose(&vec![1.0 / n as f64; n]);
    let x = Matrix::from_fn(n, d, |i, j| (x[(i, j)] - mean[j]) / (n as f64).sqrt());
    let eigen = symmetric_eigen(x.transpose_times(&x));
    let left: f64 = eigen.values[rank..].iter().sum();
    let delta = if rank < d { left / (d - rank) as f64 } else { FLOOR };
    let scaled = Matrix::from_fn(d, rank, |i, r| eigen.vectors[(r, i)] * (eigen.values[r] - delta).max(0.0).sqrt());
    let cov = scaled.times_transpose(&scaled).plus(&Matrix::scaled_identity(d, delta));
    (mean, delta, cov)
}

fn fitted(x: &[f32], d: usize, rank: usize) -> Gaussian {
    ppca(&mut MemoryRows::new(x, d), rank, FLOOR, stream()).unwrap()
}

#[test]
fn ppca_is_the_eigendecomposition() {
    // more rows than a chunk, fewer rows than dimensions, full rank
    for (count, d, rank) in [(1_300, 40, 5), (35, 60, 8), (100, 12, 12), (100, 12, 11)] {
        let x = rows(count, d);
        let (mean, delta, cov) = dense(&x, d, rank);
        let found = fitted(&x, d, rank);
        assert!(found.mean().iter().zip(&mean).all(|(a, b)| (a - b).abs() < 1e-13), "sums of f64");
        // the subspace iteration ends at 1e-7 of the explained variance, or is exact; an error ε of a direction costs ε² there
        assert!((found.diag()[0] / delta - 1.0).abs() < 1e-5, "{} {delta}", found.diag()[0]);
        assert!(
            distance(&found.covariance(), &cov) < 1e-3,
            "{count} {d} {rank}: {}",
            distance(&found.covariance(), &cov)
        );
    }
}

/// N(μ, D + U Uᵀ) of 16 dimensions and rank 2 from 20,000 complete samples.
#[test]
fn complete_samples_give_the_truth() {
    let (truth, count) = (truth(), 20_000);
    let found = fitted(&samples(&truth, count).data, D, 2);
    // every element of S has variance (c_ii c_jj + c_ij²) / N, and the model has fewer parameters than S elements
    let cov = truth.covariance();
    let trace: f64 = (0..D).map(|i| cov[(i, i)]).sum();
    let error = ((trace * trace / cov.squared_norm() + 1.0) / count as f64).sqrt();
    assert!(distance(&found.covariance(), &cov) < 1.5 * error, "{} {error}", distance(&found.covariance(), &cov));
    // δ is a mean of 14 N squares
    assert!((found.diag()[0] / 0.0625 - 1.0).abs() < 5.0 * (2.0 / (14.0 * count as f64)).sqrt(), "{}", found.diag()[0]);
}

#[test]
fn bits_are_the_same_for_files_and_any_threads() {
    let x = rows(600, 40);
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("draws.npy");
    npy::write(&path, &Array::f32(&[600, 2, 5, 4], x.clone())).unwrap();
    let memory = with_threads(1, || fitted(&x, 40, 5));
    let file = with_threads(3, || ppca(&mut NpyReader::open(&path).unwrap(), 5, FLOOR, stream()).unwrap());
    assert_eq!(memory, file);
}
