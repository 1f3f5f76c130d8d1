//! `diem check`: every op against its definition, and the samplers' discretisation error.

use super::device::{About, Job};
use super::options::DeviceOptions;
use super::{Outcome, say};
use crate::Result;
use crate::backend::timed::Timed;
use crate::check::{self, CheckRow};
use crate::diffusion::propagate::std_errors;
use crate::diffusion::samplers::Sampler;
use crate::diffusion::schedule::Schedule;
use crate::ops::TrainingOps;
use std::io::Write;

/// Options of `diem check`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    device: DeviceOptions,
    /// Only cases whose "op size" contains this
    #[arg(long, value_name = "TEXT", default_value = "")]
    ops: String,
    /// Seed of the random inputs
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Args {
    /// Prints one row per comparison, then the samplers' table.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        self.device.run(Check { args: self, out })
    }
}

struct Check<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Check<'_> {
    fn run<B: TrainingOps + Timed>(self, backend: &B, device: &About) -> Result<Outcome> {
        let Self { args, out } = self;
        say(out, format_args!("device: {}\n", device.description))?;
        say(out, format_args!("{:<18} {:<28} {:<44} {:>9} {:>9}", "op", "size", "compared", "error", "bound"))?;
        let (mut rows, mut failed, mut written) = (0, 0, Ok(()));
        check::run(&args.ops, args.seed, backend, |row| {
            rows += 1;
            failed += usize::from(!row.pass);
            if written.is_ok() {
                written = print(out, &row);
            }
        })?;
        written?;
        say(out, format_args!("\n{rows} comparisons, {failed} failed"))?;
        if let Some(Err(why)) = backend.library() {
            say(out, format_args!("linear layers were not compared with cuBLAS: {why}"))?;
        }
        if args.ops.is_empty() {
            samplers(out)?;
        }
        Ok(if failed == 0 { Outcome::Done } else { Outcome::Faulty })
    }
}

fn print(out: &mut dyn Write, row: &CheckRow) -> Result<()> {
    let CheckRow { op, size, what, error, bound, pass } = row;
    let verdict = if *pass { "" } else { "  FAILED" };
    say(out, format_args!("{op:<18} {size:<28} {what:<44} {error:>9.1e} {bound:>9.0e}{verdict}"))
}

/// |std / s - 1| of each sampler on N(0, s²), s = 1, propagated exactly.
fn samplers(out: &mut dyn Write) -> Result<()> {
    const STEPS: [usize; 6] = [16, 32, 64, 128, 256, 1024];
    let samplers = [
        Sampler::Ddpm,
        Sampler::Ddim { eta: 0.0 },
        Sampler::Pc { corrections: 1, delta: 0.1 },
        Sampler::TwoM,
        Sampler::TwoMSde,
    ];
    say(out, "\nrelative error of the std on N(0, 1), computed exactly, over the number of steps")?;
    let header: String = STEPS.iter().map(|steps| format!(" {steps:>9}")).collect();
    say(out, format_args!("{:<10}{header}", "sampler"))?;
    for sampler in samplers {
        let errors = std_errors(&[sampler], &STEPS, Schedule::default(), &[1.0])?;
        let errors: String = errors.iter().map(|row| format!(" {:>8.2}%", 100.0 * row.error)).collect();
        say(out, format_args!("{:<10}{errors}", sampler.name()))?;
    }
    Ok(())
}
