//! Which posterior denoiser, with which settings: what a user chooses.

use super::solvers::{Krylov, Solver};
use super::{Covariance, Diffpir, Dps, Mmps, Posterior, Tmpd, pgdm};
use crate::backend::Backend;
use crate::diffusion::samplers::{Plan, Sampler};
use crate::diffusion::{Denoiser, Gaussian};
use crate::operators::Measurement;
use crate::ops::least_squares::COLUMNS;
use crate::ops::{Dplr, KrylovOps};
use crate::{Error, Result};

/// How E\[x | x_t, y\] is approximated.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Moment matching posterior sampling.
    #[default]
    Mmps,
    /// Diffusion posterior sampling.
    Dps,
    /// Pseudoinverse-guided diffusion.
    Pgdm,
    /// Tweedie moment projected diffusion.
    Tmpd,
    /// Plug-and-play image restoration.
    Diffpir,
}

/// The name of a [`Covariance`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CovarianceKind {
    /// Tweedie's, σ² J.
    #[default]
    Tweedie,
    /// Σ_t = σ² I.
    Sigma,
    /// (I + Σ_t⁻¹)⁻¹.
    Unit,
    /// (Σ_x⁻¹ + Σ_t⁻¹)⁻¹ of the fitted Gaussian prior.
    Prior,
    /// 0.
    Zero,
}

/// The method and all that any of them asks for.
#[derive(Clone, Copy, PartialEq, Debug, serde::Serialize)]
pub struct Settings {
    /// The method.
    pub method: Method,
    /// The Krylov method of its solves.
    pub solver: Krylov,
    /// Iterations of each solve.
    pub iterations: usize,
    /// Tolerance of each solve, relative to the first residual.
    pub rtol: f64,
    /// V\[x | x_t\] in the system of MMPS.
    pub covariance: CovarianceKind,
    /// σ_t from which on [`CovarianceKind::Prior`] stands in for [`CovarianceKind::Tweedie`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prior_above: Option<f64>,
    /// Strength ζ of DPS.
    pub zeta: f64,
    /// Weight λ of the prior in DiffPIR.
    pub lambda: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            method: Method::default(),
            solver: Krylov::default(),
            iterations: 1,
            rtol: 1e-3,
            covariance: CovarianceKind::default(),
            prior_above: None,
            zeta: 1.0,
            lambda: 10.0,
        }
    }
}

impl Settings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// When one makes no sense: the option, what it must be, and what it is.
    pub fn check(&self) -> Result<()> {
        if self.iterations == 0 {
            return Err(Error::mismatch("--iterations", "at least 1", 0));
        }
        if self.solver == Krylov::Gmres && self.iterations > COLUMNS {
            return Err(Error::mismatch("--iterations", format!("at most {COLUMNS} with gmres"), self.iterations));
        }
        if !(0.0..1.0).contains(&self.rtol) {
            return Err(Error::mismatch("--rtol", "0 or more and below 1", self.rtol));
        }
        let prior_above = self.prior_above.map(|sigma| ("--prior-above", sigma));
        for (option, value) in [("--zeta", self.zeta), ("--lambda", self.lambda)].into_iter().chain(prior_above) {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::mismatch(option, "a positive number", value));
            }
        }
        Ok(())
    }
    /// Refuses a sampler that the method is not made for: DPS moves x_s by ζ in each step of the reverse process, and of a
    /// correction (PC), which takes the estimate with another weight, its paper says nothing.
    ///
    /// # Errors
    /// Names the sampler.
    pub fn check_sampler(&self, sampler: Sampler) -> Result<()> {
        match (self.method, sampler) {
            (Method::Dps, Sampler::Pc { .. }) => {
                Err(Error::mismatch("--method dps", "a sampler without corrections", "--sampler pc"))
            }
            _ => Ok(()),
        }
    }
    /// The option that asks for a Gaussian prior, if one does.
    pub fn of_prior(&self) -> Option<&'static str> {
        match self.covariance {
            CovarianceKind::Prior => Some("--covariance prior"),
            _ => self.prior_above.map(|_| "--prior-above"),
        }
    }
    /// The posterior denoiser of `measurement`, whose rows are the samples of the batch, for the steps of `plan`; `prior` is the
    /// Gaussian that [`Settings::of_prior`] asks for.
    ///
    /// # Errors
    /// Those of [`Settings::check`], and when the prior is needed and missing.
    pub fn estimator<'a, B, D>(
        &self,
        backend: &B,
        denoiser: &'a D,
        measurement: &'a Measurement<B>,
        prior: Option<&'a Gaussian>,
        plan: &Plan,
    ) -> Result<Box<dyn Posterior<B> + 'a>>
    where
        B: Backend + KrylovOps + Dplr,
        D: Denoiser<B>,
    {
        self.check()?;
        let solver = Solver { krylov: self.solver, iterations: self.iterations, rtol: self.rtol };
        Ok(match self.method {
            Method::Mmps => Box::new(Mmps::new(backend, denoiser, measurement, solver, self.covariance(prior)?)),
            Method::Dps => Box::new(Dps::new(backend, denoiser, measurement, self.zeta, plan)),
            Method::Pgdm => Box::new(pgdm(backend, denoiser, measurement, solver)),
            Method::Tmpd => Box::new(Tmpd::new(backend, denoiser, measurement)),
            Method::Diffpir => Box::new(Diffpir::new(backend, denoiser, measurement, solver, self.lambda)),
        })
    }

    /// V\[x | x_t\] in the system of MMPS.
    ///
    /// # Errors
    /// When it needs a Gaussian prior, and there is none.
    pub fn covariance<'a>(&self, prior: Option<&'a Gaussian>) -> Result<Covariance<'a>> {
        let needed = || {
            let expected = "a model with a fitted Gaussian (tensors mean, diag, factor), or --prior-model";
            prior.ok_or_else(|| Error::mismatch(self.of_prior().unwrap_or_default(), expected, "neither"))
        };
        Ok(match self.covariance {
            CovarianceKind::Tweedie => match self.prior_above {
                Some(sigma) => Covariance::TweedieBelow { sigma, prior: needed()? },
                None => Covariance::Tweedie,
            },
            CovarianceKind::Sigma => Covariance::Sigma,
            CovarianceKind::Unit => Covariance::Unit,
            CovarianceKind::Zero => Covariance::Zero,
            CovarianceKind::Prior => Covariance::Prior(needed()?),
        })
    }
}
