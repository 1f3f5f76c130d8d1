//! `[sample]`.

use super::check;
use crate::diffusion::samplers::{Sampler, SamplerName};
use crate::posterior::solvers::Krylov;
use crate::posterior::{CovarianceKind, Method};
use crate::{Result, posterior};
use serde::{Deserialize, Serialize};

/// `[sample]`: the options of `diem sample`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sample {
    /// Reverse process.
    pub sampler: SamplerName,
    /// Steps from σ_max to σ_min.
    pub steps: usize,
    /// Share of fresh noise in ddim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta: Option<f64>,
    /// Langevin corrections per step of pc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrections: Option<usize>,
    /// Length of a correction of pc.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<f64>,
    /// Posterior denoiser.
    pub method: Method,
    /// Linear solver of the method.
    pub solver: Krylov,
    /// Iterations of the solver.
    pub iterations: usize,
    /// Relative residual at which a solve has converged.
    pub rtol: f64,
    /// Covariance of x given x_t inside the solve; prior is the Gaussian fitted to the draws of the lap before.
    pub covariance: CovarianceKind,
    /// Noise level from which on that Gaussian's stands in for Tweedie's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior_above: Option<f64>,
    /// Strength of dps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zeta: Option<f64>,
    /// Weight of the prior in diffpir.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// Draws of the posterior of each observation.
    pub draws: usize,
    /// Draws with any |x_i| of this or more are dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
    /// Samples at a time; as many as help and fit where it is not given. The samples do not depend on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
}

impl Default for Sample {
    fn default() -> Self {
        let posterior::Settings { method, solver, iterations, rtol, covariance, .. } = posterior::Settings::default();
        Self {
            sampler: SamplerName::Ddpm,
            steps: 256,
            eta: None,
            corrections: None,
            delta: None,
            method,
            solver,
            iterations,
            rtol,
            covariance,
            prior_above: None,
            zeta: None,
            lambda: None,
            draws: 1,
            bound: None,
            batch: None,
        }
    }
}

impl Sample {
    /// The defaults of the options that apply; refuses those that do not.
    pub(super) fn fill_in(&mut self) -> Result<()> {
        let posterior::Settings { zeta, lambda, .. } = posterior::Settings::default();
        match self.sampler()? {
            Sampler::Ddim { eta } => self.eta = Some(eta),
            Sampler::Pc { corrections, delta } => {
                (self.corrections, self.delta) = (Some(corrections), Some(delta));
            }
            Sampler::Ddpm | Sampler::TwoM | Sampler::TwoMSde => {}
        }
        match self.method {
            Method::Dps => self.zeta = self.zeta.or(Some(zeta)),
            Method::Diffpir => self.lambda = self.lambda.or(Some(lambda)),
            Method::Mmps | Method::Pgdm | Method::Tmpd => {}
        }
        check("zeta", self.zeta.is_none() || self.method == Method::Dps, "method dps", "another")?;
        check("lambda", self.lambda.is_none() || self.method == Method::Diffpir, "method diffpir", "another")?;
        let plain = self.covariance == CovarianceKind::Tweedie;
        check("covariance", plain || self.method == Method::Mmps, "method mmps", "another")?;
        let own = plain && self.method == Method::Mmps;
        check("prior_above", self.prior_above.is_none() || own, "method mmps and covariance tweedie", "others")?;
        check("draws", self.draws > 0, "at least 1", 0)?;
        check("batch", self.batch != Some(0), "at least 1", 0)?;
        check("bound", self.bound.is_none_or(|b| b > 0.0), "a number above 0", format_args!("{:?}", self.bound))?;
        self.settings().check()?;
        self.settings().check_sampler(self.sampler()?)
    }
    /// The sampler with its own options.
    ///
    /// # Errors
    /// When an option is for another sampler.
    pub fn sampler(&self) -> Result<Sampler> {
        self.sampler.with(self.eta, self.corrections, self.delta)
    }
    /// The posterior denoiser.
    pub fn settings(&self) -> posterior::Settings {
        let default = posterior::Settings::default();
        let Self { method, solver, iterations, rtol, covariance, prior_above, .. } = *self;
        let (zeta, lambda) = (self.zeta.unwrap_or(default.zeta), self.lambda.unwrap_or(default.lambda));
        posterior::Settings { method, solver, iterations, rtol, covariance, prior_above, zeta, lambda }
    }
}
