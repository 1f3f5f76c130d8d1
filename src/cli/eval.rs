//! `diem eval`: what arrays of samples are worth, against a reference set and against the truth.

use super::options::count;
use super::{Outcome, refuse_existing, say};
use crate::backend::Shape;
use crate::backend::cpu::{Cpu, Options};
use crate::data::{Array, DType, Samples, atomic, images, npy};
use crate::metrics::features::{FD_GARMENTS, Garments};
use crate::metrics::{Restoration, frechet, restoration, sliced_wasserstein};
use crate::ops::noise::{Purpose, Stream};
use crate::run::moments::Moments;
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Options of `diem eval`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Samples to evaluate, (M, H, W, C) or (M, D)
    #[arg(long, value_name = "A.npy")]
    samples: PathBuf,
    /// Images of the distribution that they should be of: as --input of `diem observe`
    #[arg(long, value_name = "IMAGES")]
    reference: Option<PathBuf>,
    /// At most so many images of the reference, from the first [default: all]
    #[arg(long, value_name = "N", value_parser = count)]
    reference_count: Option<usize>,
    /// Images that the samples are posterior draws of, the draws of one adjacent
    #[arg(long, value_name = "X.npy")]
    truth: Option<PathBuf>,
    /// Black pixels to add around every image of the reference and the truth
    #[arg(long, value_name = "PIXELS", default_value_t = 0, value_parser = super::images::pad)]
    pad: usize,
    /// Random projections of the sliced Wasserstein distance
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = count)]
    projections: usize,
    /// Seed of the projections
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write all results here too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes over a file that is there
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Prints the numbers, one a line, and writes them.
    ///
    /// # Errors
    /// In one line: files that cannot be read or do not fit each other.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        if let Some(path) = self.json.as_ref().filter(|_| !self.force) {
            refuse_existing(path)?;
        }
        let samples = read_samples(&self.samples)?;
        let reference = self.read_images(self.reference.as_deref(), self.reference_count, samples.shape)?;
        let truth = self.read_images(self.truth.as_deref(), None, samples.shape)?;
        let finite = finite(&samples);
        let (total, failures) = (samples.shape.n, samples.shape.n - finite.shape.n);
        let mut table = Table { out, report: Map::new() };
        table.put("samples", json!(total), format_args!("{total} of {}", extents(samples.shape)))?;
        if failures > 0 {
            table.put("not_finite", json!(failures), format_args!("{failures}, which are left out"))?;
        }
        let enough = finite.shape.n >= 2;
        if !enough && (reference.is_some() || truth.is_none()) {
            return Err(Error::mismatch(
                self.samples.display(),
                "at least two samples that are finite",
                finite.shape.n,
            ));
        }
        if enough {
            let summary = Summary::of(&finite);
            summary.tell("samples", &mut table)?;
            if let Some(reference) = &reference {
                self.compare(&finite, &summary, reference, &mut table)?;
            }
        }
        if let Some(truth) = &truth {
            let found = restoration(&samples, truth).map_err(|e| e.within(self.samples.display()))?;
            tell_restoration(&found, &mut table)?;
        }
        if let Some(path) = &self.json {
            let report = Value::Object(table.report);
            atomic::write_bytes(path, format!("{report:#}\n").as_bytes())?;
        }
        Ok(if failures > 0 { Outcome::NonFinite } else { Outcome::Done })
    }

    /// Images that must have the extents of the samples.
    fn read_images(&self, path: Option<&Path>, count: Option<usize>, shape: Shape) -> Result<Option<Samples<f32>>> {
        let Some(path) = path else { return Ok(None) };
        let images = images::read(path, images::Selection { count, size: None })?;
        let images = if self.pad > 0 { images::pad(&images, self.pad) } else { images };
        if images.shape.with_n(1) != shape.with_n(1) {
            let expected = format!("{}, as the samples are", extents(shape));
            return Err(Error::mismatch(path.display(), expected, extents(images.shape)));
        }
        if let Some(i) = images.data.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite { place: format!("{}, image {}", path.display(), i / images.shape.row()) });
        }
        Ok(Some(images))
    }

    fn compare(&self, x: &Samples<f32>, summary: &Summary, y: &Samples<f32>, table: &mut Table<'_>) -> Result<()> {
        table.put("reference", json!(y.shape.n), y.shape.n)?;
        let expected = Summary::of(y);
        expected.tell("reference", table)?;
        table.number("mean_rms_difference", rms(&summary.mean, &expected.mean), "")?;
        table.number("std_rms_difference", rms(&summary.std, &expected.std), "")?;
        let stream = Stream::new(self.seed, Purpose::Projection);
        let sliced = sliced_wasserstein(x, y, self.projections, stream)?;
        table.number("sliced_wasserstein", sliced, &format!("squared, {} projections", self.projections))?;
        let (n, m) = (x.shape.n, y.shape.n);
        if Garments::<Cpu>::takes(x.shape) {
            let cpu = Cpu::new(Options::default())?;
            let garments = Garments::new(&cpu);
            let distance = frechet(&garments.features(x)?, &garments.features(y)?)?;
            table.number("frechet", distance, &format!("{FD_GARMENTS}, {n} samples against {m}"))?;
            table.report.insert("frechet_features".to_owned(), FD_GARMENTS.into());
        } else {
            table.put("frechet", Value::Null, format_args!("none: {FD_GARMENTS} is for images of 32 x 32 x 1"))?;
        }
        Ok(())
    }
}

fn tell_restoration(restoration: &Restoration, table: &mut Table<'_>) -> Result<()> {
    let Restoration { draws, lost, mse, psnr, spread } = *restoration;
    table.put("draws", json!(draws), format_args!("{draws} of each image"))?;
    if lost > 0 {
        table.put("lost", json!(lost), format_args!("{lost} images without a draw that is finite"))?;
    }
    table.number("mse", mse, "of the mean of the draws")?;
    table.number("psnr", psnr, "dB, of the mean of the draws, averaged over the images")?;
    if draws > 1 {
        table.number("spread", spread, "root of the draws' mean variance")?;
    }
    Ok(())
}

/// Results, printed and collected.
struct Table<'a> {
    out: &'a mut dyn Write,
    report: Map<String, Value>,
}

impl Table<'_> {
    fn put(&mut self, name: &str, value: Value, shown: impl std::fmt::Display) -> Result<()> {
        self.report.insert(name.to_owned(), value);
        say(self.out, format_args!("{name:<22} {shown}"))
    }
    fn number(&mut self, name: &str, value: f64, unit: &str) -> Result<()> {
        let shown = format!("{value:.5}");
        self.put(name, json!(value), format!("{shown:<12} {unit}").trim_end())
    }
}

/// Mean and standard deviation of each element over the samples.
struct Summary {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Summary {
    fn of(x: &Samples<f32>) -> Self {
        let mut moments = Moments::new(x.shape.row());
        (0..x.shape.n).for_each(|i| moments.add(x.row(i)));
        Self { mean: moments.mean().collect(), std: moments.std().collect() }
    }
    fn tell(&self, whose: &str, table: &mut Table<'_>) -> Result<()> {
        for (what, values) in [("mean", &self.mean), ("std", &self.std)] {
            let average = values.iter().sum::<f64>() / values.len() as f64;
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let largest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let value = json!({"average": average, "least": least, "largest": largest});
            let shown = format!("{average:<12.5} per element from {least:.4} to {largest:.4}");
            table.put(&format!("{whose}_{what}"), value, shown)?;
        }
        Ok(())
    }
}

/// Root of the mean squared difference.
fn rms(x: &[f64], y: &[f64]) -> f64 {
    (x.iter().zip(y).map(|(x, y)| (x - y).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
}

/// Unlike images, samples may hold any float.
fn read_samples(path: &Path) -> Result<Samples<f32>> {
    let array: Array = npy::read(path, &[DType::F32, DType::F64])?;
    let shape = match array.shape[..] {
        [n, h, w, c] => Shape::new(n, h, w, c),
        [n, d] => Shape::rows(n, d),
        _ => return Err(Error::mismatch(path.display(), "shape (M, H, W, C) or (M, D)", array.shape_text())),
    };
    if shape.is_empty() {
        return Err(Error::mismatch(path.display(), "at least one sample", array.shape_text()));
    }
    Ok(Samples::new(shape, array.data.into_f32()))
}

fn finite(x: &Samples<f32>) -> Samples<f32> {
    let good: Vec<usize> = (0..x.shape.n).filter(|&n| x.row(n).iter().all(|v| v.is_finite())).collect();
    x.gather(&good)
}

fn extents(Shape { h, w, c, .. }: Shape) -> String {
    if h * w == 1 { format!("{c} numbers") } else { format!("{h} x {w} x {c}") }
}
