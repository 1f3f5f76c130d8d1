//! Whether posterior samples agree with what was observed, as far as the noise lets them.

use crate::Result;
use crate::data::{Measured, Observations, Samples};

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
    Ok((0..expected).map(|k| chi_square(observations, k / draws, &samples.data[k * samples.shape.row()..])).collect())
}

/// χ²/M of observation `n` and the sample that `x` begins with; 0 where nothing was measured.
pub(super) fn chi_square(observations: &Observations, n: usize, x: &[f32]) -> f64 {
    let y = observations.y().row(n);
    let sigma_y = observations.noise()[n % observations.noise().len()];
    let (mut sum, mut count) = (0.0, 0);
    let mut add = |y: f32, ax: f64| {
        sum += ((f64::from(y) - ax) / sigma_y).powi(2);
        count += 1;
    };
    match observations.measured() {
        Measured::Mask(mask) => {
            let c = observations.y().shape.c;
            let mask = mask.row(n);
            (0..y.len()).filter(|i| mask[i / c] == 1).for_each(|i| add(y[i], f64::from(x[i])));
        }
        Measured::Dense(a) => {
            let rows = a.row(n).chunks_exact(a.shape.c);
            y.iter().zip(rows).for_each(|(y, a)| {
                add(*y, a.iter().zip(x).map(|(a, x)| f64::from(*a) * f64::from(*x)).sum());
            });
        }
    }
    sum / f64::from(count.max(1))
}
