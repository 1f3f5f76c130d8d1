//! Options that several commands share, and the values that they take.

use crate::data::OperatorKind;
use crate::diffusion::samplers::{Sampler, SamplerName};
use crate::posterior::solvers::Krylov;
use crate::posterior::{CovarianceKind, Method, Settings};
use crate::{Error, Result};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The denoiser.
#[derive(Args, Debug)]
pub struct ModelOptions {
    /// Checkpoint of the denoiser
    #[arg(long, value_name = "M.safetensors")]
    pub model: PathBuf,
    /// Pixels of an image, SIDE or HEIGHTxWIDTH, where neither model nor observations say it [default: 32]
    #[arg(long, value_parser = size)]
    pub size: Option<(usize, usize)>,
}

/// Where to compute, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceOptions {
    /// Where to compute: auto, cpu, cuda, cuda:INDEX; where the feature `emulator` was built, emulated or emulated:MIB of memory
    #[arg(long, default_value = "auto", value_parser = device)]
    pub device: Device,
    /// Arithmetic of the network; solvers and operators stay in float32
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,
    /// Worker threads of the CPU; 0 is one per core
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
    /// Less memory on the CPU, at less speed
    #[arg(long)]
    pub low_memory: bool,
}

/// `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The fastest that is there.
    Auto,
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
    /// The GPU's kernels on the processor, and the bytes of its memory where they are told.
    Emulated(Option<usize>),
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16 with float32 accumulation, on GPUs.
    Bf16,
}

impl Precision {
    /// "f32" or "bf16".
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

fn device(text: &str) -> std::result::Result<Device, String> {
    let cuda = |text: &str| text.strip_prefix("cuda:").and_then(|i| i.parse().ok()).map(Device::Cuda);
    let emulated = |text: &str| {
        let mib: u32 = text.strip_prefix("emulated:")?.parse().ok()?;
        Some(Device::Emulated(Some((mib as usize) << 20)))
    };
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        "emulated" => Ok(Device::Emulated(None)),
        _ => cuda(text)
            .or_else(|| emulated(text))
            .ok_or_else(|| "one of auto, cpu, cuda, cuda:INDEX, emulated".to_owned()),
    }
}

/// What was observed, and the posterior that follows.
#[derive(Args, Debug)]
#[command(next_help_heading = "Posterior")]
pub struct PosteriorOptions {
    /// Observations (.npz): sample their posterior instead of the prior
    #[arg(long, value_name = "OBS.npz")]
    pub observations: Option<PathBuf>,
    /// What was measured: which pixels (mask), a matrix per sample (dense), which columns of k-space (fourier), blur, or
    /// downsample
    #[arg(long, value_enum)]
    pub operator: Option<OperatorKind>,
    #[command(flatten)]
    pub method: MethodOptions,
}

/// How the posterior is computed.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Posterior")]
pub struct MethodOptions {
    /// Posterior denoiser
    #[arg(long, value_enum, default_value = "mmps")]
    pub method: Method,
    /// Linear solver of the method
    #[arg(long, value_enum, default_value = "cg")]
    pub solver: Krylov,
    /// Iterations of the solver: one VJP of the network each
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = count)]
    pub iterations: usize,
    /// Relative residual at which a sample's solve has converged
    #[arg(long, default_value_t = 1e-3, value_parser = non_negative)]
    pub rtol: f64,
    /// Covariance of x given x_t inside the solve
    #[arg(long, value_enum, default_value = "tweedie")]
    pub covariance: CovarianceKind,
    /// Noise level from which on the Gaussian prior's covariance stands in for Tweedie's: far above the spread of the data they
    /// agree, and a learned network's is least certain
    #[arg(long, value_name = "SIGMA", value_parser = positive)]
    pub prior_above: Option<f64>,
    /// Strength of dps, above 0 [default: 1]
    #[arg(long, value_parser = positive)]
    pub zeta: Option<f64>,
    /// Weight of the prior in diffpir, above 0 [default: 10]
    #[arg(long, value_parser = positive)]
    pub lambda: Option<f64>,
    /// Gaussian checkpoint for --covariance prior or --prior-above, where the model has none of its own
    #[arg(long, value_name = "G.safetensors")]
    pub prior_model: Option<PathBuf>,
}

impl MethodOptions {
    /// The method with its options.
    ///
    /// # Errors
    /// When an option is for another method, or its value makes no sense.
    pub fn settings(&self) -> Result<Settings> {
        let Self { method, solver, iterations, rtol, covariance, prior_above, .. } = *self;
        let misplaced = |option: &str, of| Err(Error::mismatch(option, format!("--method {of}"), "another method"));
        if self.zeta.is_some() && method != Method::Dps {
            return misplaced("--zeta", "dps");
        }
        if self.lambda.is_some() && method != Method::Diffpir {
            return misplaced("--lambda", "diffpir");
        }
        if covariance != CovarianceKind::Tweedie && method != Method::Mmps {
            return misplaced("--covariance", "mmps");
        }
        if prior_above.is_some() && method != Method::Mmps {
            return misplaced("--prior-above", "mmps");
        }
        if prior_above.is_some() && covariance != CovarianceKind::Tweedie {
            return Err(Error::mismatch("--prior-above", "--covariance tweedie", "another covariance"));
        }
        let Settings { zeta, lambda, .. } = Settings::default();
        let (zeta, lambda) = (self.zeta.unwrap_or(zeta), self.lambda.unwrap_or(lambda));
        let settings = Settings { method, solver, iterations, rtol, covariance, prior_above, zeta, lambda };
        settings.check()?;
        if self.prior_model.is_some() && settings.of_prior().is_none() {
            let expected = "--covariance prior or --prior-above with it";
            return Err(Error::mismatch("--prior-model", expected, "neither"));
        }
        Ok(settings)
    }
}

/// The reverse process.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerOptions {
    /// Reverse process; the fast setting is --sampler 2m-sde --steps 32
    #[arg(long, value_enum, default_value = "ddpm")]
    pub sampler: SamplerName,
    /// Steps from σ_max to σ_min, at most 65535; one last call of the denoiser follows
    #[arg(long, default_value_t = 256, value_parser = steps)]
    pub steps: usize,
    /// Share of fresh noise in ddim, 0 to 1; 1 is ddpm [default: 0]
    #[arg(long, value_parser = unit)]
    pub eta: Option<f64>,
    /// Langevin corrections per step of pc, at most 65535 [default: 1]
    #[arg(long, value_parser = steps)]
    pub corrections: Option<usize>,
    /// Length of a correction of pc, in units of σ² [default: 0.1]
    #[arg(long, value_parser = positive)]
    pub delta: Option<f64>,
}

impl SamplerOptions {
    /// The sampler with its own options.
    ///
    /// # Errors
    /// When an option is for another sampler.
    pub fn sampler(&self) -> Result<Sampler> {
        self.sampler.with(self.eta, self.corrections, self.delta)
    }
}

/// What a report says of a sampler.
pub fn sampler_settings(sampler: Sampler, steps: usize) -> Value {
    let mut settings = json!({"name": sampler.name(), "steps": steps});
    match sampler {
        Sampler::Ddim { eta } => settings["eta"] = eta.into(),
        Sampler::Pc { corrections, delta } => {
            settings["corrections"] = corrections.into();
            settings["delta"] = delta.into();
        }
        Sampler::Ddpm | Sampler::TwoM | Sampler::TwoMSde => {}
    }
    settings
}

/// `--batch`.
#[derive(Clone, Copy, Debug)]
pub enum BatchSize {
    /// As many as help and fit.
    Auto,
    /// This number.
    Of(usize),
}

/// "auto" or a whole number of at least 1.
pub fn batch(text: &str) -> std::result::Result<BatchSize, String> {
    match text {
        "auto" => Ok(BatchSize::Auto),
        _ => count(text).map(BatchSize::Of).map_err(|expected| format!("auto or {expected}")),
    }
}

/// A whole number of at least 1.
pub fn count(text: &str) -> std::result::Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "a whole number of at least 1".to_owned())
}

/// "28" or "28x20".
pub fn size(text: &str) -> std::result::Result<(usize, usize), String> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    let side = |text: &str| text.parse().ok().filter(|side| (1..=1 << 16).contains(side));
    side(h).zip(side(w)).ok_or_else(|| "SIDE or HEIGHTxWIDTH, each 1 to 65536".to_owned())
}

fn steps(text: &str) -> std::result::Result<usize, String> {
    count(text).ok().filter(|&n| n < 1 << 16).ok_or_else(|| "a whole number from 1 to 65535".to_owned())
}

/// A finite number above 0.
pub fn positive(text: &str) -> std::result::Result<f64, String> {
    number(text, |x| x > 0.0, "a finite number above 0")
}

fn non_negative(text: &str) -> std::result::Result<f64, String> {
    number(text, |x| x >= 0.0, "a finite number of at least 0")
}

/// A number from 0 to 1.
pub fn unit(text: &str) -> std::result::Result<f64, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

/// A finite number that is `valid`.
pub fn number(text: &str, valid: impl Fn(f64) -> bool, expected: &str) -> std::result::Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && valid(*x)).ok_or_else(|| expected.to_owned())
}
