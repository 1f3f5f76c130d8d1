//! Reverse steps: DDPM, DDIM, predictor-corrector, 2M and 2M-SDE, one per file.
//!
//! Every update of every sampler is a combination of four arrays, so a sampler is a table of [`Weights`], the [`Plan`]:
//! [`sample`] carries it out, and [`super::propagate`] carries a mean and a covariance through the same table.

mod ddim;
mod ddpm;
mod driver;
mod name;
mod pc;
mod two_m;

pub use driver::{Draws, Failure, sample, start};
pub use name::SamplerName;

use super::schedule::Schedule;
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};

/// The method of the reverse process.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub enum Sampler {
    /// Ancestral sampling (Ho et al., 2020), the paper's.
    #[default]
    Ddpm,
    /// Implicit sampling (Song et al., 2021).
    Ddim {
        /// Share of the noise of DDPM: 0 is deterministic and keeps an error of its start (see [`Sampler::TwoM`]), 1 is DDPM.
        eta: f64,
    },
    /// DDIM steps, each followed by Langevin corrections (Song et al., 2021).
    Pc {
        /// Corrections per step.
        corrections: usize,
        /// Length δ of a correction.
        delta: f64,
    },
    /// DPM-Solver++(2M) (Lu et al., 2022): deterministic, second order. As every deterministic sampler it forgets nothing of its
    /// start: the samples' mean is off by up to |E\[x | y\] - μ_x|/σ(1) posterior standard deviations.
    TwoM,
    /// SDE-DPM-Solver++(2M) (Lu et al., 2022): with noise, second order.
    TwoMSde,
}

/// One update: x_s = a x_t + b x̂ + c x̂_prev + d ε, where x̂_prev is the estimate of the update before.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Weights {
    /// a.
    pub x: f64,
    /// b.
    pub x_hat: f64,
    /// c: 0 except in multistep methods.
    pub x_hat_prev: f64,
    /// d: 0 in deterministic methods.
    pub noise: f64,
}

/// One row of a [`Plan`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Update {
    /// Where x̂ is estimated.
    pub sigma: f64,
    /// What is done with it.
    pub weights: Weights,
    /// The step, counted from 0 at t = 1.
    pub step: usize,
    /// 0 for the step itself, then 1 .. C for its corrections.
    pub correction: usize,
}

impl Update {
    /// The stream of its noise; `run` gives the seed, the EM iteration and the epoch.
    pub fn stream(&self, run: Stream) -> Stream {
        let purpose = if self.correction == 0 { Purpose::Step } else { Purpose::Correction };
        Stream { purpose, ..run }.at(self.step, self.correction)
    }
}

/// All updates from t = 1 to t = 0.
#[derive(Clone, PartialEq, Debug)]
pub struct Plan {
    /// σ(1), the standard deviation of the start around the prior's mean.
    pub sigma_start: f64,
    /// In their order.
    pub updates: Vec<Update>,
    /// σ(0), where the last estimate is the result.
    pub sigma_end: f64,
    /// T.
    pub steps: usize,
}

impl Plan {
    /// How often the estimator is called.
    pub fn calls(&self) -> usize {
        self.updates.len() + 1
    }
}

impl Sampler {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ddpm => "ddpm",
            Self::Ddim { .. } => "ddim",
            Self::Pc { .. } => "pc",
            Self::TwoM => "2m",
            Self::TwoMSde => "2m-sde",
        }
    }

    /// The updates of `steps` steps over `schedule`.
    ///
    /// # Errors
    /// When `steps` is not in 1 .. 65535, η not in [0, 1], δ not in (0, 1], or there are more than 65535 corrections.
    pub fn plan(self, schedule: Schedule, steps: usize) -> Result<Plan> {
        self.check(steps)?;
        let sigma = schedule.grid(steps);
        let mut updates = Vec::new();
        for step in 0..steps {
            let (sigma_t, sigma_s) = (sigma[step], sigma[step + 1]);
            let sigma_prev = step.checked_sub(1).map(|i| sigma[i]);
            let weights = match self {
                Self::Ddpm => ddpm::step(sigma_t, sigma_s),
                Self::Ddim { eta } => ddim::step(sigma_t, sigma_s, eta),
                Self::Pc { .. } => ddim::step(sigma_t, sigma_s, 0.0),
                Self::TwoM => two_m::step(sigma_prev, sigma_t, sigma_s),
                Self::TwoMSde => two_m::step_sde(sigma_prev, sigma_t, sigma_s),
            };
            updates.push(Update { sigma: sigma_t, weights, step, correction: 0 });
            if let Self::Pc { corrections, delta } = self {
                let weights = pc::correction(sigma_s, delta);
                updates.extend((1..=corrections).map(|correction| Update {
                    sigma: sigma_s,
                    weights,
                    step,
                    correction,
                }));
            }
        }
        Ok(Plan { sigma_start: sigma[0], updates, sigma_end: sigma[steps], steps })
    }

    fn check(self, steps: usize) -> Result<()> {
        const LAST: usize = u16::MAX as usize; // what the noise counter holds
        if !(1..=LAST).contains(&steps) {
            return Err(Error::mismatch("steps", "1 to 65535", steps));
        }
        match self {
            Self::Ddim { eta } if !(0.0..=1.0).contains(&eta) => Err(Error::mismatch("eta", "0 to 1", eta)),
            Self::Pc { corrections, .. } if corrections > LAST => {
                Err(Error::mismatch("corrections", "0 to 65535", corrections))
            }
            Self::Pc { delta, .. } if !(delta > 0.0 && delta <= 1.0) => {
                Err(Error::mismatch("delta", "above 0, at most 1", delta))
            }
            _ => Ok(()),
        }
    }
}
