//! Options of how images are corrupted, which `observe` and `calibrate` share.

use super::options::{count, positive, unit};
use crate::backend::Shape;
use crate::data::{Measured, OperatorKind, corruption};
use crate::{Error, Result};
use clap::Args;

/// Matrices larger than this are refused: a mistyped --rows, or images too large for a matrix each.
const MAX_MATRIX_BYTES: u64 = 8 << 30;

/// What is measured of images, and how precisely.
#[derive(Args, Debug)]
#[command(next_help_heading = "Corruption")]
pub struct CorruptionOptions {
    /// What is measured: some of the pixels (mask), or projections onto random directions (dense) [default: mask; dense for vectors]
    #[arg(long, value_enum)]
    operator: Option<OperatorKind>,
    /// Probability that a pixel is kept, all channels together [default: 0.25]
    #[arg(long, value_parser = unit, conflicts_with = "delete")]
    keep: Option<f64>,
    /// Probability that a pixel is deleted: 1 - keep
    #[arg(long, value_parser = unit)]
    delete: Option<f64>,
    /// Projections per image, of dense [default: keep times H W C]
    #[arg(long, value_name = "M", value_parser = count, conflicts_with_all = ["keep", "delete"])]
    rows: Option<usize>,
    /// Standard deviation of the noise [default: 0.001; of calibrate 0.05]
    #[arg(long, value_name = "SIGMA_Y", value_parser = positive)]
    noise: Option<f64>,
}

/// What is asked of images that are to be learned from: the paper's.
pub const NOISE: f64 = 1e-3;
/// What is asked of a posterior that is to be judged: more than the sampler's last step leaves uncertain.
pub const JUDGED_NOISE: f64 = 0.05;

impl CorruptionOptions {
    /// Standard deviation of the noise, `usual` where none is given.
    pub fn noise(&self, usual: f64) -> f64 {
        self.noise.unwrap_or(usual)
    }

    /// A random operator for each of the images of extents `images`.
    ///
    /// # Errors
    /// When options do not go together, or matrices would be too large.
    pub fn measured(&self, images: Shape, seed: u64) -> Result<Measured> {
        let keep = self.keep.or(self.delete.map(|d| 1.0 - d)).unwrap_or(0.25);
        let usual = if images.pixels() == 1 { OperatorKind::Dense } else { OperatorKind::Mask };
        Ok(match self.operator.unwrap_or(usual) {
            OperatorKind::Mask if self.rows.is_some() => {
                return Err(Error::mismatch("--rows", "--operator dense", "--operator mask"));
            }
            OperatorKind::Mask => Measured::Mask(corruption::random_mask(images, keep, seed)),
            OperatorKind::Dense => {
                let d = images.row();
                let m = self.rows.unwrap_or((keep * d as f64).round() as usize).max(1);
                let bytes = [m, d, 4].iter().try_fold(images.n as u64, |a, b| a.checked_mul(*b as u64));
                if bytes.is_none_or(|b| b > MAX_MATRIX_BYTES) {
                    let found = format!("{} x {m} x {d} numbers (use fewer --rows or a --count)", images.n);
                    return Err(Error::mismatch("--operator dense", "matrices of at most 8 GiB", found));
                }
                Measured::Dense(corruption::random_projections(images, m, seed))
            }
        })
    }
}
