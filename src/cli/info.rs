//! `diem info`: devices, what this build does, a model's summary.

use super::device::gpus;
use super::options::{DeviceOptions, size};
use super::{Outcome, say};
use crate::Result;
use crate::backend::cuda::kernels::{BUILD, Resources};
use crate::data::checkpoint::{Checkpoint, Kind};
use std::io::Write;
use std::path::PathBuf;

/// Options of `diem info`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Checkpoint to describe
    #[arg(long, value_name = "M.safetensors")]
    model: Option<PathBuf>,
    /// Pixels of an image, SIDE or HEIGHTxWIDTH, that floating point operations are counted for
    #[arg(long, value_parser = size, default_value = "32")]
    size: (usize, usize),
    #[command(flatten)]
    device: DeviceOptions,
    /// List the GPU's kernels and what they take instead
    #[arg(long)]
    kernels: bool,
}

impl Args {
    /// Prints the summary.
    ///
    /// # Errors
    /// In one line: a device that is not there, a checkpoint that is none.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        if self.kernels {
            return kernel_table(out);
        }
        let description = self.device.description()?;
        say(out, format_args!("diem       {}", env!("CARGO_PKG_VERSION")))?;
        say(out, format_args!("device     {description}"))?;
        let kernels = match BUILD.nvcc {
            Ok(nvcc) => format!("by {nvcc} for {}", BUILD.archs),
            Err(why) => format!("none ({why}); tools/install_nvcc.sh gets a compiler, then build again"),
        };
        say(out, format_args!("kernels    {kernels}"))?;
        for gpu in gpus() {
            say(out, format_args!("cuda       {gpu}"))?;
        }
        if let Some(bytes) = crate::backend::host::available_memory() {
            say(out, format_args!("memory     {:.1} GiB free", bytes as f64 / (1u64 << 30) as f64))?;
        }
        self.model.as_ref().map_or(Ok(()), |path| self.describe(&Checkpoint::open(path)?, out))?;
        Ok(Outcome::Done)
    }

    fn describe(&self, checkpoint: &Checkpoint, out: &mut dyn Write) -> Result<()> {
        let metadata = checkpoint.metadata();
        let parameters = metadata.layout().elements();
        say(out, format_args!("model      {}", checkpoint.path().display()))?;
        match &metadata.kind {
            Kind::UNet(config) => {
                let (h, w) = metadata.image().map_or(self.size, |image| (image.h, image.w));
                say(out, format_args!("kind       U-Net, {parameters} parameters, channels {:?}", config.channels))?;
                say(
                    out,
                    format_args!("images     {} channels, sides multiples of {}", config.in_channels, config.divisor()),
                )?;
                if h.is_multiple_of(config.divisor()) && w.is_multiple_of(config.divisor()) {
                    let flops = config.flops(h, w);
                    let (forward, vjp) = (flops.forward / 1e9, flops.vjp / 1e9);
                    say(out, format_args!("work       {forward:.2} GFLOP forward, {vjp:.2} GFLOP VJP, for {h}x{w}"))?;
                }
            }
            Kind::Mlp(config) => {
                say(out, format_args!("kind       MLP, {parameters} parameters, hidden {:?}", config.hidden))?;
                say(out, format_args!("vectors    {} elements", config.features))?;
            }
            Kind::Gaussian { channels } => {
                let (h, w) = metadata.height.zip(metadata.width).unwrap_or_default();
                say(out, format_args!("kind       Gaussian prior, images {h} x {w} x {channels}"))?;
            }
        }
        let prior = if checkpoint.covariance().is_some() { "yes" } else { "no" };
        say(out, format_args!("gaussian   {prior} (tensors mean, diag, factor)"))?;
        say(out, format_args!("noise      sigma {} to {}", metadata.sigma_min, metadata.sigma_max))
    }
}

/// Registers, shared memory and stack of every kernel, as ptxas says.
fn kernel_table(out: &mut dyn Write) -> Result<Outcome> {
    say(out, "| kernel | arch | registers | static shared memory, bytes | stack, bytes | spills, bytes |")?;
    say(out, "|---|---|---|---|---|---|")?;
    for Resources { kernel, arch, registers, shared, stack, spills } in BUILD.modules.iter().flat_map(|m| m.resources) {
        say(out, format_args!("| {kernel} | {arch} | {registers} | {shared} | {stack} | {spills} |"))?;
    }
    Ok(Outcome::Done)
}
