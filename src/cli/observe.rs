//! `diem observe`: makes an observation file from images or points of a manifold, by random pixel deletion or random projections.

use super::corruption::CorruptionOptions;
use super::options::count;
use super::{Outcome, say};
use crate::backend::Shape;
use crate::data::atomic::Staged;
use crate::data::manifold::Manifold;
use crate::data::picture::{self, Tile};
use crate::data::{Array, Measured, Observations, Samples, corruption, images, npy};
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
    /// Images: a folder of PNG or JPEG, one such file, .npy (uint8, or floats in [-2, 2]), or IDX (MNIST)
    #[arg(long, value_name = "IMAGES", required_unless_present = "manifold")]
    input: Option<PathBuf>,
    /// Instead of images, random points of a smooth random curve, which spans [-2, 2] in every coordinate
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
    /// At most so many images, from the first [default: all; 65536 of a manifold]
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<usize>,
    /// Crops pictures to a centred square and scales them to this many pixels a side
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Black pixels to add around every image: 2 makes 32x32 of 28x28
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    pad: usize,
    /// Seed of the manifold, deletions, directions and noise
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
        [Some(&self.out), Some(&preview), self.truth.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|p| self.is_free(p))?;
        let images = self.images()?;
        let measured = self.corruption.measured(images.shape, self.seed)?;
        let observations = corruption::observe(&self.out, &images, measured, self.corruption.noise, self.seed)?;
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
            Measured::Mask(mask) => {
                let kept = mask.data.iter().filter(|m| **m == 1).count() as f64 / mask.data.len() as f64;
                format!("{:.1}% of the pixels", 100.0 * kept)
            }
            Measured::Dense(a) => format!("{} projections each", a.shape.w),
        };
        let (path, noise) = (self.out.display(), self.corruption.noise);
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
            return Ok(manifold.points(0, self.count.unwrap_or(POINTS)));
        };
        let images = images::read(input, images::Selection { count: self.count, size: self.size })?;
        if self.pad > 0 && images.shape.pixels() == 1 {
            return Err(Error::mismatch("--pad", "images", format!("vectors in {}", input.display())));
        }
        Ok(if self.pad > 0 { images::pad(&images, self.pad) } else { images })
    }
}

/// The first images, and below each what was observed of it.
fn draw(images: &Samples<f32>, observations: &Observations) -> RgbImage {
    let n = PREVIEW.min(images.shape.n);
    let back: Vec<_> = (0..n).map(|i| observations.back_projection(i)).collect();
    let truths = (0..n).map(|i| Tile::Image(images.row(i))).collect();
    let observed = (0..n).map(|i| observations.tile(i, &back[i])).collect();
    picture::grid(images.shape, &[truths, observed])
}
