//! `diem info`: devices, what this build does, a model's summary.

use super::device::NO_CUDA;
use super::options::DeviceOptions;
use super::{Outcome, say};
use crate::Result;
use std::io::Write;

/// Options of `diem info`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    device: DeviceOptions,
}

impl Args {
    /// Prints the summary.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let cpu = self.device.cpu()?;
        say(out, format_args!("diem {}", env!("CARGO_PKG_VERSION")))?;
        say(out, format_args!("device     {}", self.device.describe(&cpu)))?;
        say(out, format_args!("cuda       no: {NO_CUDA}"))?;
        Ok(Outcome::Done)
    }
}
