//! Whether posterior samples agree with what was observed, as far as the noise lets them.

use crate::Result;
use crate::data::observations::Applied;
use crate::data::{Observations, Samples};

/// χ²/M = ‖y - A x‖²/(M σ_y²) of every sample, M the number of measured values: sample k is of observation k / `draws`.
///
/// Its mean is 1 where (x, y) have their joint distribution, as draws of the exact posterior have. That is a check of
/// consistency and no evidence of a good prior: overfitting makes it smaller, never worse-looking.
///
/// # Shapes
/// `samples` (N · draws, D) for N observations.
///
/// # Errors
/// When the samples' extents do not fit the operator, or there are not `draws` samples of each observation.
pub fn observation_residual(observations: &Observations, samples: &Samples<f32>, draws: usize) -> Result<Vec<f64>> {
    observations.check_image(samples.shape)?;
    let expected = observations.len() * draws;
    if samples.shape.n != expected {
        return Err(crate::Error::mismatch("samples of the posterior", expected, samples.shape.n));
    }
    let operators = Applied::new(observations.measured(), samples.shape);
    let chi_square = |k: usize| chi_square(observations, &operators, k / draws, samples.row(k));
    Ok((0..expected).map(chi_square).collect())
}

/// χ²/M of observation `n` and the sample `x`; 0 where nothing was measured.
pub(super) fn chi_square(observations: &Observations, operators: &Applied<'_>, n: usize, x: &[f32]) -> f64 {
    let y = observations.y().row(n);
    let sigma_y = observations.noise()[n % observations.noise().len()];
    let shape = observations.y().shape;
    let (mut sum, mut count) = (0.0, 0);
    for (i, ax) in operators.forward(n, x).into_iter().enumerate() {
        if observations.measured().observed(n, shape, i) {
            sum += ((f64::from(y[i]) - ax) / sigma_y).powi(2);
            count += 1;
        }
    }
    sum / f64::from(count.max(1))
}
