//! Options that several commands share, and the values that they take.

use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Where to compute, and how.
#[derive(Args, Debug)]
#[command(next_help_heading = "Device")]
pub struct DeviceOptions {
    /// Where to compute: auto, cpu, cuda or cuda:INDEX
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
}

/// `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Single precision.
    F32,
    /// bfloat16 with float32 accumulation, on GPUs.
    Bf16,
}

fn device(text: &str) -> Result<Device, String> {
    let cuda = |text: &str| text.strip_prefix("cuda:").and_then(|i| i.parse().ok()).map(Device::Cuda);
    match text {
        "auto" => Ok(Device::Auto),
        "cpu" => Ok(Device::Cpu),
        "cuda" => Ok(Device::Cuda(0)),
        _ => cuda(text).ok_or_else(|| "one of auto, cpu, cuda, cuda:INDEX".to_owned()),
    }
}

/// What was observed, and the posterior that follows.
#[derive(Args, Debug)]
#[command(next_help_heading = "Posterior")]
pub struct PosteriorOptions {
    /// Observations (.npz): sample their posterior instead of the prior
    #[arg(long, value_name = "OBS.npz", requires = "operator")]
    pub observations: Option<PathBuf>,
    /// What was measured: which pixels (mask), or a matrix per sample (dense)
    #[arg(long, value_enum, requires = "observations")]
    pub operator: Option<Operator>,
    /// Posterior denoiser
    #[arg(long, value_enum, default_value = "mmps", requires = "observations")]
    pub method: Method,
    /// Linear solver of the method
    #[arg(long, value_enum, default_value = "cg", requires = "observations")]
    pub solver: Solver,
    /// Iterations of the solver: one VJP of the network each
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = count, requires = "observations")]
    pub iterations: usize,
    /// Relative residual at which a sample's solve has converged
    #[arg(long, default_value_t = 1e-3, value_parser = non_negative, requires = "observations")]
    pub rtol: f64,
    /// Covariance of x given x_t inside the solve
    #[arg(long, value_enum, default_value = "tweedie", requires = "observations")]
    pub covariance: Covariance,
    /// Gaussian checkpoint for --covariance prior, where the model has none of its own
    #[arg(long, value_name = "G.safetensors", requires = "observations")]
    pub prior_model: Option<PathBuf>,
}

/// `--operator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Operator {
    Mask,
    Dense,
}

/// `--method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Method {
    Mmps,
}

/// `--solver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[allow(missing_docs)]
pub enum Solver {
    Cg,
}

/// `--covariance`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Covariance {
    /// σ² Jᵀ
    Tweedie,
    /// σ² I
    Sigma,
    /// (I + I/σ²)⁻¹
    Unit,
    /// (Σ_x⁻¹ + I/σ²)⁻¹
    Prior,
    /// 0
    Zero,
}

/// The reverse process.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerOptions {
    /// Reverse process; the fast setting is --sampler 2m-sde --steps 32
    #[arg(long, value_enum, default_value = "ddpm")]
    pub sampler: Sampler,
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

/// `--sampler`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sampler {
    /// DDPM, stochastic
    Ddpm,
    /// DDIM, deterministic unless --eta is above 0
    Ddim,
    /// DDIM with Langevin corrections
    Pc,
    /// DPM-Solver++ (2M), deterministic
    #[value(name = "2m")]
    TwoM,
    /// SDE-DPM-Solver++ (2M), stochastic
    #[value(name = "2m-sde")]
    TwoMSde,
}

/// A whole number of at least 1.
pub fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|&n| n > 0).ok_or_else(|| "a whole number of at least 1".to_owned())
}

fn steps(text: &str) -> Result<usize, String> {
    count(text).ok().filter(|&n| n < 1 << 16).ok_or_else(|| "a whole number from 1 to 65535".to_owned())
}

/// A finite number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    number(text, |x| x > 0.0, "a finite number above 0")
}

fn non_negative(text: &str) -> Result<f64, String> {
    number(text, |x| x >= 0.0, "a finite number of at least 0")
}

/// A number from 0 to 1.
pub fn unit(text: &str) -> Result<f64, String> {
    number(text, |x| (0.0..=1.0).contains(&x), "a number from 0 to 1")
}

fn number(text: &str, valid: impl Fn(f64) -> bool, expected: &str) -> Result<f64, String> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && valid(*x)).ok_or_else(|| expected.to_owned())
}
