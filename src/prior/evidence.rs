//! The evidence: how probable the observations are under a Gaussian prior.

use super::problem::Problem;
use super::system::Systems;
use crate::Result;
use crate::backend::Shape;
use crate::data::Observations;
use crate::diffusion::Gaussian;
use rayon::prelude::*;
use std::ops::Range;

/// The mean over all observations of ln p(y) = ln N(y; A μ, A Σ Aᵀ + σ_y² I), exact: what EM climbs.
///
/// # Shapes
/// `image` (H, W, C), N ignored.
///
/// # Errors
/// When observations, image and prior do not fit.
pub fn log_evidence(gaussian: &Gaussian, observations: &Observations, image: Shape) -> Result<f64> {
    let problem = Problem::new(observations, image)?;
    let gaussian = problem.prior(gaussian)?;
    log_evidence_of(&Systems::new(&gaussian, &problem)?, 0..observations.len())
}

/// That of the observations `range`.
pub(super) fn log_evidence_of(systems: &Systems<'_>, range: Range<usize>) -> Result<f64> {
    let count = range.len() as f64;
    let values = range.into_par_iter().map(|n| systems.log_evidence(n)).collect::<Result<Vec<f64>>>()?;
    Ok(values.iter().sum::<f64>() / count) // in their order, whatever the threads did
}
