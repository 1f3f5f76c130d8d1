//! `diem bench`: how long ops and whole posterior steps take, next to the work that they do.

use super::options::{DeviceOptions, count};
use super::{Outcome, say};
use crate::backend::cpu::Cpu;
use crate::backend::{Backend, Shape};
use crate::check::bench::step::{self, StepRow, StepSettings};
use crate::check::bench::{self, BenchRow, peak};
use crate::data::checkpoint::Kind;
use crate::data::{Checkpoint, atomic};
use crate::diffusion::model::Model;
use crate::nn::UNetConfig;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `diem bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    device: DeviceOptions,
    /// Network of the whole step: cifar, mri or small (untrained), or a checkpoint; without it, the ops are timed
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Seed of an untrained network's weights
    #[arg(long, default_value_t = 0)]
    init_seed: u64,
    /// Images of the batch
    #[arg(long, default_value_t = 4, value_parser = count)]
    batch: usize,
    /// Iterations of the MMPS solve
    #[arg(long, default_value_t = 1, value_parser = count)]
    iterations: usize,
    /// Side of an image, in pixels
    #[arg(long, default_value_t = 32, value_parser = count)]
    size: usize,
    /// Timed repetitions of a step; the median is reported
    #[arg(long, default_value_t = 7, value_parser = count)]
    repeat: usize,
    /// Time the ops whose "op size" contains this
    #[arg(long, value_name = "TEXT")]
    ops: Option<String>,
    /// Write the results here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    /// Prints the tables.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let cpu = self.device.cpu()?;
        let peak = peak::flops(&cpu);
        say(out, format_args!("device: {}", self.device.describe(&cpu)))?;
        say(out, format_args!("peak:   {:.0} GFLOP/s of multiply-adds in registers, measured\n", peak / 1e9))?;
        let mut report = json!({"device": self.device.describe(&cpu), "peak_gflops": peak / 1e9});
        if self.ops.is_some() || self.model.is_none() {
            report["ops"] = self.ops(&cpu, peak, out)?;
        }
        if let Some(model) = &self.model {
            self.step(&cpu, model, peak, out, &mut report)?;
        }
        if let Some(path) = &self.json {
            atomic::write_bytes(path, format!("{report:#}\n").as_bytes())?;
        }
        Ok(Outcome::Done)
    }

    fn ops(&self, cpu: &Cpu, peak: f64, out: &mut dyn Write) -> Result<Value> {
        say(out, BenchRow::head())?;
        let (mut rows, mut written) = (Vec::new(), Ok(()));
        bench::run(self.ops.as_deref().unwrap_or(""), self.init_seed, cpu, |row: BenchRow| {
            if written.is_ok() {
                written = say(out, row.line(peak));
            }
            let BenchRow { op, size, what, seconds, flops, bytes } = row;
            rows.push(
                json!({"op": op, "size": size, "call": what, "seconds": seconds, "flops": flops, "bytes": bytes}),
            );
        })?;
        written?;
        Ok(rows.into())
    }

    fn step(&self, cpu: &Cpu, name: &str, peak: f64, out: &mut dyn Write, report: &mut Value) -> Result<()> {
        let model = self.model(cpu, name)?;
        let metadata = model.metadata();
        let image = metadata.image().unwrap_or(Shape::new(1, self.size, self.size, metadata.channels()));
        let flops = match &metadata.kind {
            Kind::UNet(config) => Some(config.flops(image.h, image.w)),
            _ => None,
        };
        let settings = StepSettings {
            image: image.with_n(self.batch),
            iterations: self.iterations,
            repeat: self.repeat,
            seed: self.init_seed,
        };
        say(out, format_args!("{name}, {:?}", settings.image))?;
        say(out, StepRow::head())?;
        let (mut steps, mut written) = (Vec::new(), Ok(()));
        step::run(cpu, &model, flops, settings, |row| {
            if written.is_ok() {
                written = say(out, row.line(peak));
            }
            steps.push(row);
        })?;
        written?;
        let pool = cpu.memory().peak;
        let resident = step::peak_resident();
        let mib = |bytes: usize| bytes >> 20;
        let process = resident.map_or("unknown".to_owned(), |bytes| format!("{} MiB", mib(bytes)));
        say(
            out,
            format_args!("\npeak memory: process {process}, pooled arrays with packed weights {} MiB", mib(pool)),
        )?;

        let last = steps.last().expect("a forward and a step were timed");
        report["model"] = name.into();
        report["batch"] = self.batch.into();
        report["iterations"] = self.iterations.into();
        report["seconds_per_image"] = last.seconds_per_image().into();
        report["peak_resident_bytes"] = resident.into();
        report["pool_peak_bytes"] = pool.into();
        let step = |row: &StepRow| json!({"what": row.what, "seconds": row.seconds, "fastest": row.fastest, "flops": row.flops});
        report["steps"] = steps.iter().map(step).collect();
        Ok(())
    }

    fn model(&self, cpu: &Cpu, name: &str) -> Result<Model<Cpu>> {
        if let Some(config) = UNetConfig::preset(name) {
            let image = Shape::new(1, self.size, self.size, config.in_channels);
            return Model::initial(cpu, config, image, true, self.init_seed);
        }
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::mismatch("--model", "cifar, mri, small or a checkpoint", format!("'{name}'")));
        }
        let checkpoint = Checkpoint::open(path)?;
        let metadata = checkpoint.metadata();
        let image = metadata.image().unwrap_or(Shape::new(1, self.size, self.size, metadata.channels()));
        Model::load(cpu, &checkpoint, image, true)
    }
}
