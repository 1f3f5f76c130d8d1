//! `diem bench`: how long ops, levels of a network and whole posterior steps take, next to the work that they do and to what
//! the device can do at best.

use super::device::{About, Job, Kind};
use super::options::{DeviceOptions, count};
use super::{Outcome, say};
use crate::backend::Shape;
use crate::backend::cuda::kernels::BUILD;
use crate::backend::timed::{Roofline, Timed};
use crate::check::bench::step::{self, StepRow, StepSettings};
use crate::check::bench::{self, BenchRow, Sizes, Unit, levels, training};
use crate::data::checkpoint::{Kind as Network, Metadata};
use crate::data::{Checkpoint, atomic};
use crate::diffusion::model::Model;
use crate::nn::UNetConfig;
use crate::ops::{Ops, TrainingOps};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `diem bench`.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    device: DeviceOptions,
    /// Network whose levels and whole steps are timed: cifar, mri or small (untrained), or a checkpoint; without it, the ops are
    #[arg(long, value_name = "NAME|FILE")]
    model: Option<String>,
    /// Seed of an untrained network's weights
    #[arg(long, default_value_t = 0)]
    init_seed: u64,
    /// Images of the batch [default: 4 on the CPU, 256 on a GPU, 1 emulated, where ops have the sizes of `check`]
    #[arg(long, value_parser = count)]
    batch: Option<usize>,
    /// Time a step of training instead: loss, gradients, clipping, Adam and moving average
    #[arg(long, requires = "model", conflicts_with = "iterations")]
    training: bool,
    /// Iterations of the MMPS solve
    #[arg(long, default_value_t = 1, value_parser = count)]
    iterations: usize,
    /// Side of an image, in pixels
    #[arg(long, default_value_t = 32, value_parser = count)]
    size: usize,
    /// Timed repetitions of a step at least; the median is reported
    #[arg(long, default_value_t = 7, value_parser = count)]
    repeat: usize,
    /// Time the ops whose "op size" contains this
    #[arg(long, value_name = "TEXT")]
    ops: Option<String>,
    /// Write all results here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

impl Args {
    /// Prints the tables.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        self.device.run(Bench { args: self, out })
    }
}

struct Bench<'a> {
    args: &'a Args,
    out: &'a mut dyn Write,
}

impl Job for Bench<'_> {
    fn run<B: TrainingOps + Timed>(self, backend: &B, device: &About) -> Result<Outcome> {
        let Self { args, out } = self;
        let roof = backend.roofline()?;
        let table = Table { roof: &roof, unit: Unit::of(&roof) };
        say(out, format_args!("device: {}", device.description))?;
        table.roofline(out)?;
        let batch = args.batch.unwrap_or(match device.kind {
            Kind::Cpu => 4,
            Kind::Gpu => 256,
            Kind::Emulated => 1,
        });
        let mut report = json!({
            "device": device.description,
            "arithmetic": device.arithmetic,
            "versions": {"diem": env!("CARGO_PKG_VERSION"), "kernels": BUILD.nvcc.ok(), "architectures": BUILD.archs},
            "peak": {"flops_per_second": roof.flops, "by": roof.by},
            "copy_bytes_per_second": roof.copy,
            "cache_bytes": roof.cache,
            "batch": batch,
        });
        if args.ops.is_some() || args.model.is_none() {
            let sizes = if device.kind == Kind::Emulated { Sizes::Small } else { Sizes::Cifar(batch) };
            let filter = args.ops.as_deref().unwrap_or("");
            report["ops"] = table.rows(out, |row| bench::run(filter, sizes, backend, &roof, row))?;
        }
        match &args.model {
            Some(name) if args.training => args.training(backend, name, batch, &table, out, &mut report)?,
            Some(name) => args.network(backend, name, batch, &table, out, &mut report)?,
            None => {}
        }
        if let Some(path) = &args.json {
            atomic::write_bytes(path, format!("{report:#}\n").as_bytes())?;
        }
        Ok(Outcome::Done)
    }
}

/// How results are printed.
struct Table<'a> {
    roof: &'a Roofline,
    unit: Unit,
}

impl Table<'_> {
    fn roofline(&self, out: &mut dyn Write) -> Result<()> {
        let Roofline { flops, by, copy, cache, .. } = self.roof;
        let (scale, name) = (self.unit.scale(), self.unit.name());
        let peak = flops.map_or(by.clone(), |flops| format!("{:.0} {name}, {by}, measured", flops / scale));
        say(out, format_args!("peak:   {peak}"))?;
        say(out, format_args!("copy:   {:.1} GB/s read and written, measured", copy / 1e9))?;
        if *cache > 0 {
            let kib = cache >> 10;
            say(out, format_args!("*:      the arrays fit the cache of {kib} KiB, and are found there"))?;
        }
        Ok(())
    }
    /// A table of ops or levels.
    fn rows(&self, out: &mut dyn Write, run: impl FnOnce(&mut dyn FnMut(BenchRow)) -> Result<()>) -> Result<Value> {
        let head = format!("\n{}", BenchRow::head(self.unit));
        Ok(json!(tell(out, &head, |row| row.line(self.unit), run)?))
    }
    /// A table of steps.
    fn steps(
        &self,
        out: &mut dyn Write,
        run: impl FnOnce(&mut dyn FnMut(StepRow)) -> Result<()>,
    ) -> Result<Vec<StepRow>> {
        tell(out, &StepRow::head(self.unit), |row| row.line(self.unit, self.roof), run)
    }
}

/// Prints the rows that `run` gives below their head, each when it is there, and collects them.
fn tell<R>(
    out: &mut dyn Write,
    head: &str,
    line: impl Fn(&R) -> String,
    run: impl FnOnce(&mut dyn FnMut(R)) -> Result<()>,
) -> Result<Vec<R>> {
    say(out, head)?;
    let (mut rows, mut written) = (Vec::new(), Ok(()));
    run(&mut |row| {
        if written.is_ok() {
            written = say(out, line(&row));
        }
        rows.push(row);
    })?;
    written?;
    Ok(rows)
}

impl Args {
    fn network<B: TrainingOps + Timed>(
        &self,
        backend: &B,
        name: &str,
        batch: usize,
        table: &Table<'_>,
        out: &mut dyn Write,
        report: &mut Value,
    ) -> Result<()> {
        let model = self.model(backend, name)?;
        let metadata = model.metadata();
        let image = self.image(metadata).with_n(batch);
        say(out, format_args!("\n{name}, {image:?}"))?;
        let mut flops = None;
        if let Network::UNet(config) = &metadata.kind {
            flops = Some(config.flops(image.h, image.w));
            report["levels"] = table.rows(out, |row| levels::run(backend, config, image, table.roof, row))?;
            say(out, "")?;
        }

        let Self { iterations, repeat, init_seed: seed, .. } = *self;
        let settings = StepSettings { image, iterations, repeat, seed };
        let steps = table.steps(out, |row| step::run(backend, &model, flops, settings, row))?;
        let last = steps.last().expect("a forward and a step were timed");
        let target = step::target(name, iterations, table.roof);
        if let Some(target) = target {
            say(out, format_args!("target: {target:.0} images/s at a batch of 256"))?;
        }
        report["model"] = name.into();
        report["iterations"] = iterations.into();
        report["seconds_per_image"] = last.seconds_per_image().into();
        report["images_per_second"] = last.images_per_second.into();
        report["target_images_per_second"] = target.into();
        report["steps"] = json!(steps);
        Self::memory(backend, out, report)
    }

    /// What has been in memory at most.
    fn memory<B: Ops>(backend: &B, out: &mut dyn Write, report: &mut Value) -> Result<()> {
        let (pool, resident) = (backend.memory().peak, step::peak_resident());
        let mib = |bytes: usize| bytes >> 20;
        let process = resident.map_or("unknown".to_owned(), |bytes| format!("{} MiB", mib(bytes)));
        report["peak_resident_bytes"] = resident.into();
        report["pool_peak_bytes"] = pool.into();
        say(out, format_args!("\npeak memory: process {process}, pooled arrays with packed weights {} MiB", mib(pool)))
    }

    fn training<B: TrainingOps>(
        &self,
        backend: &B,
        name: &str,
        batch: usize,
        table: &Table<'_>,
        out: &mut dyn Write,
        report: &mut Value,
    ) -> Result<()> {
        let metadata = match UNetConfig::preset(name) {
            Some(config) => Metadata::new(Network::UNet(config)),
            None => Self::checkpoint(name)?.metadata().clone(),
        };
        let image = self.image(&metadata).with_n(batch);
        let flops = match &metadata.kind {
            Network::UNet(config) => Some(config.flops(image.h, image.w)),
            _ => None,
        };
        say(out, format_args!("\n{name}, {image:?}"))?;
        let settings = (self.repeat, self.init_seed);
        let steps = table.steps(out, |row| {
            row(training::run(backend, &metadata, image, flops, settings)?);
            Ok(())
        })?;
        report["model"] = name.into();
        report["seconds_per_image"] = steps[0].seconds_per_image().into();
        report["steps"] = json!(steps);
        Self::memory(backend, out, report)
    }

    fn model<B: Ops>(&self, backend: &B, name: &str) -> Result<Model<B>> {
        if let Some(config) = UNetConfig::preset(name) {
            let image = Shape::new(1, self.size, self.size, config.in_channels);
            return Model::initial(backend, config, image, true, self.init_seed);
        }
        let checkpoint = Self::checkpoint(name)?;
        Model::load(backend, &checkpoint, self.image(checkpoint.metadata()), true)
    }

    /// Extents of an image of a network.
    fn image(&self, metadata: &Metadata) -> Shape {
        metadata.image().unwrap_or(Shape::new(1, self.size, self.size, metadata.channels()))
    }

    fn checkpoint(name: &str) -> Result<Checkpoint> {
        let path = Path::new(name);
        if !path.exists() {
            return Err(Error::mismatch("--model", "cifar, mri, small or a checkpoint", format!("'{name}'")));
        }
        Checkpoint::open(path)
    }
}
