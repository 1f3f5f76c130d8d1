//! The paper's way to draw the posterior under a Gaussian prior: through the diffusion sampler.

use crate::backend::{Array, Shape};
use crate::data::Observations;
use crate::diffusion::samplers::{self, Sampler};
use crate::diffusion::{Gaussian, Schedule};
use crate::ops::noise::Stream;
use crate::ops::{Dplr, KrylovOps, MeasurementOps, Noise};
use crate::posterior::solvers::{Krylov, Solver};
use crate::posterior::{Covariance, Mmps};
use crate::{Error, Result};
use std::ops::Range;

/// As [`super::draw_posterior`], by `steps` steps of DDIM with MMPS and the Gaussian's exact denoiser, 256 in the paper:
/// not exact, but the same path that the network's draws take.
///
/// # Shapes
/// (`range`, H, W, C), those of `image`, whose N is ignored.
///
/// # Errors
/// When observations, image and prior do not fit, the device has failed, or a draw is not finite.
pub fn draw_posterior_ddim<B: KrylovOps + Dplr + MeasurementOps + Noise>(
    backend: &B,
    gaussian: &Gaussian,
    observations: &Observations,
    image: Shape,
    (range, draws): (Range<usize>, usize),
    steps: usize,
    stream: Stream,
) -> Result<Vec<f32>> {
    let plan = Sampler::Ddim { eta: 0.0 }.plan(Schedule::default(), steps)?;
    let (shape, samples) = (image.with_n(range.len()), range.clone().map(|k| k as u32).collect::<Vec<_>>());
    let index: Vec<usize> = range.map(|k| k / draws).collect();
    let measurement = observations.bind(backend, &index, image, None)?;
    // A V Aᵀ + Σ_y has R + 1 distinct eigenvalues where D and Σ_y are multiples of I; in f32 a few repeat
    let solver = Solver { krylov: Krylov::Cg, iterations: 2 * (gaussian.factor().cols() + 1), rtol: 1e-5 };
    let mut estimator = Mmps::new(backend, gaussian, &measurement, solver, Covariance::Tweedie);
    let mean = backend.upload(image.with_n(1), gaussian.mean());
    let x_1 = samplers::start(backend, &plan, Some(&mean), shape, stream, &samples);
    let drawn = samplers::sample(backend, &mut estimator, &plan, x_1, stream, &samples, &mut |_| ())?;
    if let Some(failure) = drawn.failures.first() {
        return Err(Error::NonFinite { place: format!("draw {}, DDIM step {}", failure.sample, failure.step) });
    }
    let mut x = vec![0.0; drawn.x_0.shape().len()];
    backend.download(&drawn.x_0, &mut x)?;
    Ok(x)
}
