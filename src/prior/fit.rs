//! Expectation maximization of the Gaussian prior.

use super::evidence::log_evidence_of;
use super::factors::Masked;
use super::ppca::check_rank;
use super::problem::Problem;
use super::system::Systems;
use super::{MemoryRows, draw_posterior, draw_posterior_ddim, moments, ppca};
use crate::backend::Shape;
use crate::backend::cpu::{self, Cpu};
use crate::data::Observations;
use crate::diffusion::Gaussian;
use crate::ops::noise::Stream;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Draws of [`Update::Ddim`] at a time.
const BATCH: usize = 256;

/// How the prior is fitted.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// R, the rank of the covariance beside its diagonal.
    pub rank: usize,
    /// EM iterations at most.
    pub iterations: usize,
    /// Observations used at most, from the first.
    pub observations: usize,
    /// Ends when the log-evidence rises by less than this share of it.
    pub tolerance: f64,
    /// The least value of the diagonal D; at full rank, its value.
    pub floor: f64,
    /// What an iteration does.
    pub update: Update,
    /// Sampler steps of [`Update::Ddim`].
    pub steps: usize,
}

/// What an EM iteration does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Update {
    /// The maximum over exact moments of all posteriors. The default: the evidence never falls, so that its last rise says how
    /// far from the end it is. The moments are those of x, as if there were infinitely many draws, in the first iteration and
    /// where operators are matrices; with masks those of the factors in all others, which climbs many times faster.
    #[default]
    ClosedForm,
    /// PPCA on one exact draw of every posterior.
    Draws,
    /// PPCA on one draw of every posterior by the diffusion sampler, as in the paper.
    Ddim,
}

impl Default for Settings {
    fn default() -> Self {
        let update = Update::default();
        Self { rank: 64, iterations: 16, observations: 16_384, tolerance: 1e-4, floor: 1e-6, update, steps: 256 }
    }
}

impl Settings {
    /// Checks the numbers for images with the extents of `image`, of which there are `count` observations.
    ///
    /// # Errors
    /// When one makes no sense: the setting, what it must be, and what it is.
    pub fn check(&self, image: Shape, count: usize) -> Result<()> {
        check_rank(self.rank, image.row())?;
        if !(1..1 << 12).contains(&self.iterations) {
            return Err(Error::mismatch("iterations", "1 to 4095", self.iterations));
        }
        let used = count.min(self.observations);
        if used <= self.rank {
            return Err(Error::mismatch("observations", format_args!("more than the rank, {}", self.rank), used));
        }
        if !(self.floor > 0.0 && self.floor.is_finite()) {
            return Err(Error::mismatch("floor", "a positive variance", self.floor));
        }
        if !(self.tolerance >= 0.0 && self.tolerance.is_finite()) {
            return Err(Error::mismatch("tolerance", "0 or more", self.tolerance));
        }
        Ok(())
    }
}

/// A fitted prior.
#[derive(Clone, PartialEq, Debug)]
pub struct Fit {
    /// The last iteration's.
    pub gaussian: Gaussian,
    /// The log-evidence per observation of N(0, I) and after every iteration.
    pub evidence: Vec<f64>,
}

/// Fits N(μ, D + U Uᵀ) to observations by expectation maximization from N(0, I); `progress` is told the iterations done and the
/// log-evidence after them. `stream` gives the seed and the EM iteration; iteration k uses its epoch k.
///
/// # Errors
/// Those of [`Settings::check`]; when the observations are of other images.
pub fn fit(
    observations: &Observations,
    image: Shape,
    settings: &Settings,
    stream: Stream,
    progress: &mut dyn FnMut(usize, f64),
) -> Result<Fit> {
    settings.check(image, observations.len())?;
    let count = observations.len().min(settings.observations);
    let (d, problem) = (image.row(), Problem::new(observations, image)?);
    // in the basis of the problem, in which N(0, I) is N(0, I) too
    let mut gaussian = Gaussian::new(vec![0.0; d], vec![1.0; d], Vec::new())?;
    let mut evidence = Vec::new();
    loop {
        let iteration = evidence.len();
        let now = log_evidence_of(&Systems::new(&gaussian, &problem)?, 0..count)?;
        progress(iteration, now);
        let converged = evidence.last().is_some_and(|before| now - before <= settings.tolerance * now.abs());
        evidence.push(now);
        if converged || iteration == settings.iterations {
            return Ok(Fit { gaussian: problem.image_prior(&gaussian)?.into_owned(), evidence });
        }
        let stream = Stream { epoch: (iteration + 1) as u32, ..stream };
        gaussian = match settings.update {
            Update::ClosedForm => match Masked::of(&problem, count, &gaussian, settings.rank) {
                Some(masked) => masked.update(&gaussian, settings.floor)?,
                None => {
                    let systems = Systems::new(&gaussian, &problem)?;
                    moments::update(&systems, count, settings.rank, settings.floor, stream)?
                }
            },
            Update::Draws | Update::Ddim => {
                let prior = problem.image_prior(&gaussian)?;
                let draws = draws(&prior, observations, image, settings, count, stream)?;
                let fitted = ppca(&mut MemoryRows::new(&draws, d), settings.rank, settings.floor, stream)?;
                problem.prior(&fitted)?.into_owned()
            }
        };
    }
}

/// One draw of the posterior of each of the first `count` observations.
fn draws(
    gaussian: &Gaussian,
    observations: &Observations,
    image: Shape,
    settings: &Settings,
    count: usize,
    stream: Stream,
) -> Result<Vec<f32>> {
    if settings.update == Update::Draws {
        return draw_posterior(gaussian, observations, image, 0..count, 1, stream);
    }
    let backend = Cpu::new(cpu::Options::default())?;
    let mut draws = Vec::with_capacity(count * image.row());
    for first in (0..count).step_by(BATCH) {
        let range = first..(first + BATCH).min(count);
        let steps = settings.steps;
        draws.extend(draw_posterior_ddim(&backend, gaussian, observations, image, (range, 1), steps, stream)?);
    }
    Ok(draws)
}
