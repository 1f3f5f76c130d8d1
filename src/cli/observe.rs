//! `diem observe`: makes an observation file from images, by random pixel deletion or random projections.

use super::options::{count, positive, unit};
use super::{Outcome, say};
use crate::backend::Shape;
use crate::data::atomic::Staged;
use crate::data::picture::{self, Tile};
use crate::data::{Array, Measured, Observations, OperatorKind, Samples, corruption, images, npy};
use crate::{Error, Result};
use image::RgbImage;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Images in the preview.
const PREVIEW: usize = 8;

/// Matrices larger than this are refused: a mistyped --rows, or images too large for a matrix each.
const MAX_MATRIX_BYTES: u64 = 8 << 30;

/// Options of `diem observe`.
#[derive(clap::Args, Debug)]
#[command(allow_negative_numbers = true)] // so that they are refused as values, not as options
pub struct Args {
    /// Images: a folder of PNG or JPEG, one such file, .npy (uint8, or floats in [-2, 2]), or IDX (MNIST)
    #[arg(long, value_name = "IMAGES")]
    input: PathBuf,
    /// Observation file to write; a preview is written beside it, .png
    #[arg(long, value_name = "OBS.npz")]
    out: PathBuf,
    /// What is measured: some of the pixels (mask), or projections onto random directions (dense)
    #[arg(long, value_enum, default_value = "mask")]
    operator: OperatorKind,
    /// Probability that a pixel is kept, all channels together [default: 0.25]
    #[arg(long, value_parser = unit, conflicts_with = "delete")]
    keep: Option<f64>,
    /// Probability that a pixel is deleted: 1 - keep
    #[arg(long, value_parser = unit)]
    delete: Option<f64>,
    /// Projections per image, of dense [default: keep times H W C]
    #[arg(long, value_name = "M", value_parser = count, conflicts_with_all = ["keep", "delete"])]
    rows: Option<usize>,
    /// Standard deviation of the noise
    #[arg(long, value_name = "SIGMA_Y", default_value_t = 1e-3, value_parser = positive)]
    noise: f64,
    /// At most so many images, from the first [default: all]
    #[arg(long, value_name = "N", value_parser = count)]
    count: Option<usize>,
    /// Crops pictures to a centred square and scales them to this many pixels a side
    #[arg(long, value_name = "PIXELS", value_parser = clap::value_parser!(u32).range(1..=4096))]
    size: Option<u32>,
    /// Black pixels to add around every image: 2 makes 32x32 of 28x28
    #[arg(long, value_name = "PIXELS", default_value_t = 0)]
    pad: usize,
    /// Seed of deletions, directions and noise
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
        let observations = self.observe(&images)?;
        let Shape { n, h, w, c } = images.shape;
        // all on disk before the first has its name: a failure leaves nothing that the next attempt would have to write over
        let mut files = Vec::new();
        if let Some(truth) = &self.truth {
            files.push(npy::stage(truth, &Array::f32(&[n, h, w, c], images.data.clone()))?);
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
        let path = self.out.display();
        say(out, format_args!("{path}: {n} images {h} x {w} x {c}, {what}, noise {}", self.noise))?;
        Ok(Outcome::Done)
    }

    fn is_free(&self, path: &Path) -> Result<()> {
        if self.force || !path.exists() {
            return Ok(());
        }
        Err(Error::mismatch(path.display(), "no such file yet (or --force)", "one"))
    }

    fn images(&self) -> Result<Samples<f32>> {
        let selection = images::Selection { count: self.count, size: self.size };
        let images = images::read(&self.input, selection)?;
        if self.pad > 0 && images.shape.pixels() == 1 {
            return Err(Error::mismatch("--pad", "images", format!("vectors in {}", self.input.display())));
        }
        Ok(if self.pad > 0 { images::pad(&images, self.pad) } else { images })
    }

    fn observe(&self, images: &Samples<f32>) -> Result<Observations> {
        let keep = self.keep.or(self.delete.map(|d| 1.0 - d)).unwrap_or(0.25);
        let (shape, d) = (images.shape, images.shape.row());
        let measured = match self.operator {
            OperatorKind::Mask if self.rows.is_some() => {
                return Err(Error::mismatch("--rows", "--operator dense", "--operator mask"));
            }
            OperatorKind::Mask => Measured::Mask(corruption::random_mask(shape, keep, self.seed)),
            OperatorKind::Dense => {
                let m = self.rows.unwrap_or((keep * d as f64).round() as usize).max(1);
                let bytes = [m, d, 4].iter().try_fold(shape.n as u64, |a, b| a.checked_mul(*b as u64));
                if bytes.is_none_or(|b| b > MAX_MATRIX_BYTES) {
                    let found = format!("{} x {m} x {d} numbers (use fewer --rows or a --count)", shape.n);
                    return Err(Error::mismatch("--operator dense", "matrices of at most 8 GiB", found));
                }
                Measured::Dense(corruption::random_projections(shape, m, self.seed))
            }
        };
        corruption::observe(&self.out, images, measured, self.noise, self.seed)
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
