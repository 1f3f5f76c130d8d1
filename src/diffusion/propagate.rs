//! What a sampler does to a Gaussian, exactly.
//!
//! Where the estimator is affine in x_t, as it is for a Gaussian prior, so is every update, and the result is Gaussian:
//! its mean and covariance follow without a single draw. Only the discretisation of the reverse process is left in them.

use super::samplers::{Plan, Sampler, Weights};
use super::{Estimator, Gaussian, Prior, Schedule};
use crate::backend::reference::Reference;
use crate::backend::{Backend, Shape};
use crate::linalg::Matrix;
use crate::{Error, Result};

/// The distribution of x_0.
pub struct Propagated {
    /// (D) its mean.
    pub mean: Vec<f64>,
    /// (D, D) its covariance.
    pub cov: Matrix,
    /// How far the estimator was from affine: the largest relative error of its linearisation at a further point.
    /// `mean` and `cov` are exact only where this is a rounding error.
    pub nonlinearity: f64,
}

/// Carries mean and covariance of x_1 ~ N(`mean`, σ(1)² I) through `plan`; `mean` is zero when `None`.
///
/// The estimator is probed around the current mean, in one call per update: for an `image` (1, H, W, C) of D = H W C
/// elements it is given D + 2 rows, and a posterior must have the same measurement in each.
///
/// # Errors
/// Those of the estimator, and when an estimate is not finite.
pub fn propagate(
    backend: &Reference,
    estimator: &mut dyn Estimator<Reference>,
    plan: &Plan,
    image: Shape,
    mean: Option<&[f64]>,
) -> Result<Propagated> {
    let mut mean = mean.map_or_else(|| vec![0.0; image.row()], <[f64]>::to_vec);
    let mut mean_prev = mean.clone();
    let mut nonlinearity: f64 = 0.0;
    // of (x, x̂_prev), of which x̂_prev has no weight in the first update
    let mut cov = Matrix::scaled_identity(2 * mean.len(), plan.sigma_start.powi(2));
    for update in &plan.updates {
        let local = Linearised::at(backend, estimator, image, &mean, update.sigma)?;
        let w = update.weights;
        mean = (mean.iter().zip(&local.value).zip(&mean_prev))
            .map(|((x, x_hat), prev)| w.x * x + w.x_hat * x_hat + w.x_hat_prev * prev)
            .collect();
        cov = transition(&local.jacobian, w).congruence(&cov);
        for i in 0..mean.len() {
            cov[(i, i)] += w.noise.powi(2);
        }
        mean_prev = local.value;
        nonlinearity = nonlinearity.max(local.error);
    }
    let last = Linearised::at(backend, estimator, image, &mean, plan.sigma_end)?;
    let cov_x = Matrix::from_fn(mean.len(), mean.len(), |i, j| cov[(i, j)]);
    Ok(Propagated {
        mean: last.value,
        cov: last.jacobian.congruence(&cov_x),
        nonlinearity: nonlinearity.max(last.error),
    })
}

/// The linear part of an update as a map of (x, x̂_prev): x_s = (a + b J) x + c x̂_prev, x̂ = J x.
fn transition(jacobian: &Matrix, weights: Weights) -> Matrix {
    let d = jacobian.rows();
    Matrix::from_fn(2 * d, 2 * d, |i, j| match (i < d, j < d) {
        (true, true) => weights.x_hat * jacobian[(i, j)] + if i == j { weights.x } else { 0.0 },
        (true, false) if i == j - d => weights.x_hat_prev,
        (false, true) => jacobian[(i - d, j)],
        _ => 0.0,
    })
}

/// An estimator around a point.
struct Linearised {
    value: Vec<f64>,  // (D)
    jacobian: Matrix, // (D, D)
    error: f64,
}

impl Linearised {
    /// Differences over √(1 + σ²), the scale of x_t for a prior of unit scale: exact for an affine estimator.
    fn at(
        backend: &Reference,
        estimator: &mut dyn Estimator<Reference>,
        image: Shape,
        point: &[f64],
        sigma: f64,
    ) -> Result<Self> {
        let (d, scale) = (point.len(), sigma.hypot(1.0));
        // the point itself, a move along each axis, and half a move back along all at once
        let move_of = |row: usize, i: usize| match row {
            row if row == d + 1 => -0.5 * scale,
            row if row == i + 1 => scale,
            _ => 0.0,
        };
        let probes = Matrix::from_fn(d + 2, d, |row, i| point[i] + move_of(row, i));
        let x_t = backend.upload(image.with_n(d + 2), probes.as_slice());
        let values = backend.to_vec(&estimator.estimate(backend, &x_t, &[sigma])?)?;
        if values.iter().any(|v| !v.is_finite()) {
            return Err(Error::NonFinite { place: format!("the estimate at sigma {sigma}") });
        }
        let value = |row: usize, i: usize| values[row * d + i];
        let jacobian = Matrix::from_fn(d, d, |i, j| (value(j + 1, i) - value(0, i)) / scale);
        let predicted = jacobian.apply(&vec![-0.5 * scale; d]);
        let error = (0..d).map(|i| (value(d + 1, i) - value(0, i) - predicted[i]).abs()).fold(0.0, f64::max);
        let size = values.iter().fold(0.0, |size: f64, v| size.max(v.abs()));
        Ok(Self { value: values[..d].to_vec(), jacobian, error: error / size.max(f64::MIN_POSITIVE) })
    }
}

/// A row of the sampler table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StdError {
    /// The method.
    pub sampler: Sampler,
    /// T.
    pub steps: usize,
    /// |std(x_0)/s - 1|, the largest over the prior's standard deviations s.
    pub error: f64,
}

/// The relative error of the standard deviation of samples of N(0, s²), for each sampler and number of steps: the
/// discretisation alone, computed exactly.
///
/// # Errors
/// When a sampler refuses its settings.
pub fn std_errors(samplers: &[Sampler], steps: &[usize], schedule: Schedule, scales: &[f64]) -> Result<Vec<StdError>> {
    let backend = Reference::new();
    let mut rows = Vec::new();
    for &sampler in samplers {
        for &steps in steps {
            let plan = sampler.plan(schedule, steps)?;
            let mut error: f64 = 0.0;
            for &s in scales {
                let prior = Gaussian::new(vec![0.0], vec![s * s], Vec::new())?;
                let x_0 = propagate(&backend, &mut Prior(&prior), &plan, Shape::rows(1, 1), None)?;
                error = error.max((x_0.cov[(0, 0)].sqrt() / s - 1.0).abs());
            }
            rows.push(StdError { sampler, steps, error });
        }
    }
    Ok(rows)
}
