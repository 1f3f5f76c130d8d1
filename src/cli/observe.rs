//! `diem observe`: makes an observation file from images or points of a manifold, by random pixel deletion, random projections,
//! k-space with random columns, blur or downsampling.

use super::corruption::{CorruptionOptions, NOISE};
use super::images::ImageOptions;
use super::options::count;
use super::{Outcome, say};
use crate::backend::Shape;
use crate::data::atomic::Staged;
use crate::data::manifold::Manifold;
use crate::data::picture::{self, Tile};
use crate::data::{Array, Measured, Observations, Samples, corruption, npy};
use crate::run::folder::row_dims;
use crate::{Error, Result};
use image::RgbImage;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Images in the preview.
const PREVIEW: usize = 8;

/// Points of a manifold, as many as the paper takes.
const POINTS: usize = 65_536;

/// Options of `diem observe`.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)] // so that they are refused as values, not as options
pub struct Args {
    /// Images: a folder of PNG or JPEG, one such file, .npy (uint8, or floats in [-2, 2]), IDX (MNIST), or CIFAR-10's .bin, their
    /// folder or .tar.gz
    #[arg(long, value_name = "IMAGES", required_unless_present = "manifold")]
    input: Option<PathBuf>,
    /// Instead of images, random points (65536, or --count) of a smooth random curve, which spans [-2, 2] in every coordinate
    #[arg(long, conflicts_with_all = ["input", "size", "pad"])]
    manifold: bool,
    /// Coordinates of a point of the manifold [default: 5]
    #[arg(long, value_name = "D", value_parser = count)]
    dimension: Option<usize>,
    /// Observation file to write; a preview is written beside it, .png
    #[arg(long, value_name = "OBS.npz")]
    out: PathBuf,
    #[command(flatten)]
    corruption: CorruptionOptions,
    #[command(flatten)]
    images: ImageOptions,
    /// Seed of the manifold, deletions, directions, columns and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Also writes the images themselves, as the model's values
    #[arg(long, value_name = "TRUTH.npy")]
    truth: Option<PathBuf>,
    /// Writes over files that are there
    #[arg(long)]
    force: bool,
}

impl Args {
    /// Reads the images, and writes what was observed of them.
    ///
    /// # Errors
    /// In one line: options that do not go together, files that cannot be read or written, or that are there already.
    pub fn run(&self, out: &mut dyn Write) -> Result<Outcome> {
        let preview = self.out.with_extension("png");
        if preview == self.out {
            return Err(Error::mismatch("--out", "a .npz file", self.out.display()));
        }
        if let Some(truth) = self.truth.as_ref().filter(|truth| [&self.out, &preview].contains(truth)) {
            return Err(Error::mismatch("--truth", "another file than --out and its preview", truth.display()));
        }
        [Some(&self.out), Some(&preview), self.truth.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|p| self.is_free(p))?;
        let images = self.images()?;
        let (measured, noise) = (self.corruption.measured(images.shape, self.seed)?, self.corruption.noise(NOISE));
        let observations = corruption::observe(&self.out, &images, measured, noise, self.seed)?;
        let Shape { n, h, w, c } = images.shape;
        // all on disk before the first has its name: a failure leaves nothing that the next attempt would have to write over
        let mut files = Vec::new();
        if let Some(truth) = &self.truth {
            let dims = [&[n][..], &row_dims(images.shape)].concat();
            files.push(npy::stage(truth, &Array::f32(&dims, images.data.clone()))?);
        }
        if h * w > 1 {
            files.push(picture::stage(&preview, &draw(&images, &observations))?);
        }
        files.push(observations.stage()?); // last: where it is, all is
        files.into_iter().try_for_each(Staged::commit)?;
        let what = match observations.measured() {
            Measured::Mask(mask) => format!("{:.1}% of the pixels", 100.0 * share(mask)),
            Measured::Fourier(mask) => format!("{:.1}% of the columns of k-space", 100.0 * share(mask)),
            Measured::Blur(kernel) => format!("blurred by {} x {} pixels", kernel.shape.h, kernel.shape.w),
            Measured::Downsample(factor) => format!("downsampled by {factor}"),
            Measured::Dense(a) => format!("{} projections each", a.shape.w),
        };
        let path = self.out.display();
        let images = if h * w > 1 { format!("images {h} x {w} x {c}") } else { format!("vectors of {c} elements") };
        say(out, format_args!("{path}: {n} {images}, {what}, noise {noise}"))?;
        Ok(Outcome::Done)
    }

    fn is_free(&self, path: &Path) -> Result<()> {
        if self.force || !path.exists() {
            return Ok(());
        }
        Err(Error::mismatch(path.display(), "no such file yet (or --force)", "one"))
    }

    fn images(&self) -> Result<Samples<f32>> {
        let Some(input) = &self.input else {
            let manifold = Manifold::new(self.dimension.unwrap_or(5), self.seed);
            return Ok(manifold.points(0, self.images.count.unwrap_or(POINTS)));
        };
        self.images.read(input)
    }
}

/// The share of ones.
fn share(mask: &Samples<u8>) -> f64 {
    mask.data.iter().filter(|m| **m == 1).count() as f64 / mask.data.len() as f64
}

/// The first images, and below each what was observed of it.
fn draw(images: &Samples<f32>, observations: &Observations) -> RgbImage {
    let n = PREVIEW.min(images.shape.n);
    let back: Vec<_> = (0..n).map(|i| observations.back_projection(i)).collect();
    let truths = (0..n).map(|i| Tile::Image(images.row(i))).collect();
    let observed = (0..n).map(|i| observations.tile(i, &back[i])).collect();
    picture::grid(images.shape, &[truths, observed])
}
