//! Small Gaussian worlds, their observations, and dense algebra in f64 to compare with.

use diem::backend::Shape;
use diem::data::{Measured, Observations, Samples, corruption};
use diem::diffusion::Gaussian;
use diem::linalg::{Cholesky, Matrix};
use diem::ops::noise::{Purpose, Stream};
use std::path::Path;

pub const IMAGE: Shape = Shape::new(1, 2, 4, 2);
pub const D: usize = IMAGE.row();
pub const SEED: u64 = 7;

pub fn stream() -> Stream {
    Stream::new(SEED, Purpose::Test)
}

/// Standard normal numbers.
pub fn normals(len: usize, sample: u32) -> Vec<f64> {
    (0..len.div_ceil(4) as u32).flat_map(|block| stream().normals(sample, block)).take(len).collect()
}

/// D = 16, R = 2, with the noise of its diagonal a quarter of the factors'.
pub fn truth() -> Gaussian {
    Gaussian::new(normals(D, 1), vec![0.0625; D], normals(D * 2, 2)).unwrap()
}

/// `count` samples of `gaussian`.
pub fn samples(gaussian: &Gaussian, count: usize) -> Samples<f32> {
    let (d, rank) = (gaussian.mean().len(), gaussian.factor().cols());
    let row = |n: usize| {
        let z = normals(d + rank, 1_000 + n as u32);
        let x = gaussian.factor().apply(&z[d..]);
        (0..d).map(|i| (gaussian.mean()[i] + gaussian.diag()[i].sqrt() * z[i] + x[i]) as f32).collect::<Vec<_>>()
    };
    Samples::new(IMAGE.with_n(count), (0..count).flat_map(row).collect())
}

/// How [`samples`] are observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operator {
    /// Half of the pixels, others in every image.
    Masks,
    /// The same pixels in all images.
    SharedMask,
    /// Five random directions, others for every sample.
    Projections,
    /// Six directions for all samples, of which two are sums of others.
    RankDeficient,
    /// Every element, by the identity matrix.
    Identity,
    /// Every element, by a mask.
    AllPixels,
}

pub fn observe(images: &Samples<f32>, operator: Operator, sigma_y: f64) -> Observations {
    let n = images.shape.n;
    let measured = match operator {
        Operator::Masks => Measured::Mask(corruption::random_mask(images.shape, 0.5, SEED)),
        Operator::SharedMask => Measured::Mask(corruption::random_mask(images.shape.with_n(1), 0.5, SEED)),
        Operator::AllPixels => Measured::Mask(corruption::random_mask(images.shape.with_n(1), 1.0, SEED)),
        Operator::Projections => Measured::Dense(corruption::random_projections(images.shape, 5, SEED)),
        Operator::RankDeficient => {
            let mut a = normals(4 * D, 3);
            for (i, j) in [(0, 1), (1, 2)] {
                let sum: Vec<f64> = (0..D).map(|k| a[i * D + k] + a[j * D + k]).collect();
                a.extend(sum);
            }
            Measured::Dense(Samples::new(Shape::new(1, 1, 6, D), a.iter().map(|a| *a as f32).collect()))
        }
        Operator::Identity => {
            let identity = Matrix::scaled_identity(D, 1.0);
            let a = identity.as_slice().iter().map(|a| *a as f32).collect();
            Measured::Dense(Samples::new(Shape::new(1, 1, D, D), a))
        }
    };
    let observations = corruption::observe(Path::new("obs.npz"), images, measured, sigma_y, SEED).unwrap();
    assert_eq!(observations.len(), n);
    observations
}

/// A and y of observation `n`.
pub fn dense(observations: &Observations, n: usize) -> (Matrix, Vec<f64>) {
    let y = observations.y().row(n);
    match observations.measured() {
        Measured::Mask(mask) => {
            let kept: Vec<usize> = (0..D).filter(|i| mask.row(n)[i / IMAGE.c] == 1).collect();
            let a = Matrix::from_fn(kept.len(), D, |m, i| f64::from(u8::from(kept[m] == i)));
            (a, kept.iter().map(|&i| f64::from(y[i])).collect())
        }
        Measured::Dense(a) => {
            let m = a.shape.w;
            (Matrix::from_fn(m, D, |r, i| f64::from(a.row(n)[r * D + i])), y.iter().map(|y| f64::from(*y)).collect())
        }
        other => panic!("{:?} has its own tests", other.kind()),
    }
}

/// Mean and covariance of x given observation `n`, and ln p(y), by dense algebra.
pub struct Exact {
    pub mean: Vec<f64>,
    pub cov: Matrix,
    pub log_evidence: f64,
}

pub fn exact(gaussian: &Gaussian, observations: &Observations, n: usize) -> Exact {
    condition(gaussian, dense(observations, n), observations.noise()[0])
}

/// Given y = A x + noise, where σ_y² is large enough for dense algebra.
pub fn condition(gaussian: &Gaussian, (a, y): (Matrix, Vec<f64>), sigma_y: f64) -> Exact {
    let (cov_x, d) = (gaussian.covariance(), gaussian.mean().len());
    let cov_y = a.congruence(&cov_x).plus(&Matrix::scaled_identity(y.len(), sigma_y * sigma_y));
    let cholesky = Cholesky::new(cov_y).unwrap();
    let cross = a.times(&cov_x); // (M, D)
    let mut half = cross.clone();
    cholesky.solve_lower(&mut half);
    let residual: Vec<f64> = y.iter().zip(a.apply(gaussian.mean())).map(|(y, ax)| y - ax).collect();
    let mut v = residual.clone();
    cholesky.solve(&mut v);
    let mean = gaussian.mean().iter().zip(cross.apply_transpose(&v)).map(|(m, k)| m + k).collect();
    let explained = half.transpose_times(&half);
    let distance: f64 = residual.iter().zip(v).map(|(r, v)| r * v).sum();
    let log_evidence = -0.5 * (distance + cholesky.log_det() + y.len() as f64 * std::f64::consts::TAU.ln());
    Exact { mean, cov: Matrix::from_fn(d, d, |i, j| cov_x[(i, j)] - explained[(i, j)]), log_evidence }
}

/// Panics unless mean and covariance of the rows of `x` are `mean` and `cov`, to five and a half standard errors of a Gaussian's
/// (one in 10⁷ exceeds that), `slack` of its standard deviations more, and the rounding of f32.
pub fn assert_moments(x: &[f32], mean: &[f64], cov: &Matrix, slack: f64) {
    assert!(x.iter().all(|x| x.is_finite()), "non-finite draws");
    let (n, d) = ((x.len() / mean.len()) as f64, mean.len());
    let sum = |f: &dyn Fn(&[f32]) -> f64| x.chunks_exact(d).map(f).sum::<f64>() / n;
    let std: Vec<f64> = (0..d).map(|i| cov[(i, i)].max(0.0).sqrt()).collect();
    let rounding = 1e-6; // of values up to 8
    for i in 0..d {
        let found = sum(&|x| f64::from(x[i]));
        let bound = (5.5 / n.sqrt() + slack) * std[i] + rounding;
        assert!((found - mean[i]).abs() <= bound, "mean {i}: {found} {} to {bound:e}", mean[i]);
        for j in 0..=i {
            let found = sum(&|x| (f64::from(x[i]) - mean[i]) * (f64::from(x[j]) - mean[j]));
            let scale = std[i] * std[j];
            let spread = (scale * scale + cov[(i, j)] * cov[(i, j)]).sqrt() / n.sqrt();
            let bound = 5.5 * spread + 2.0 * slack * scale + rounding * (std[i] + std[j]) + 1e-12;
            assert!((found - cov[(i, j)]).abs() <= bound, "cov {i} {j}: {found} {} to {bound:e}", cov[(i, j)]);
        }
    }
}

/// ‖a - b‖ / ‖b‖.
pub fn distance(a: &Matrix, b: &Matrix) -> f64 {
    let difference = Matrix::from_fn(a.rows(), a.cols(), |i, j| a[(i, j)] - b[(i, j)]);
    assert!(a.as_slice().iter().chain(b.as_slice()).all(|v| v.is_finite()), "non-finite values");
    (difference.squared_norm() / b.squared_norm()).sqrt()
}

/// `f` on a pool of `threads`.
pub fn with_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(f)
}
