//! Options of how images are corrupted, which `observe` and `calibrate` share.

use super::options::{count, positive, unit};
use crate::backend::Shape;
use crate::data::{Measured, OperatorKind, Samples, corruption};
use crate::ops::filter;
use crate::ops::fourier::LARGEST;
use crate::{Error, Result};
use clap::Args;

/// Matrices larger than this are refused: a mistyped --rows, or images too large for a matrix each.
const MAX_MATRIX_BYTES: u64 = 8 << 30;

/// What is measured of images, and how precisely.
#[derive(Args, Debug)]
#[command(next_help_heading = "Corruption")]
pub struct CorruptionOptions {
    /// What is measured: some of the pixels (mask), projections onto random directions (dense), some columns of k-space
    /// (fourier), the image blurred (blur) or smaller (downsample), both with a periodic boundary
    /// [default: mask; dense for vectors]
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
    /// Acceleration R of fourier: about W / R of the W columns of k-space are kept, the central ones always; with --center so many on
    /// average, without it some more in small images [default: 6]
    #[arg(long, value_name = "R", value_parser = acceleration, conflicts_with_all = ["keep", "delete", "rows"])]
    acceleration: Option<f64>,
    /// Columns to either side of the central one that fourier always keeps [default: 3 W / (16 R), rounded up, 60 / R of 320]
    #[arg(long, value_name = "C", conflicts_with_all = ["keep", "delete", "rows"])]
    center: Option<usize>,
    /// Kernel of blur: a normal density, or a straight motion [default: gaussian]
    #[arg(long, value_enum)]
    kernel: Option<Kernel>,
    /// Pixels along a side of the kernel, which is the length of a motion [default: 9]
    #[arg(long, value_name = "PIXELS", value_parser = count)]
    kernel_size: Option<usize>,
    /// Standard deviation of the gaussian kernel, in pixels [default: a sixth of its size]
    #[arg(long, value_name = "PIXELS", value_parser = positive)]
    kernel_std: Option<f64>,
    /// Direction of the motion, in degrees from the horizontal, counter-clockwise [default: 45]
    #[arg(long, value_name = "DEGREES")]
    angle: Option<f64>,
    /// Factor of downsample, a divisor of height and width [default: 4]
    #[arg(long, value_name = "F", value_parser = count)]
    factor: Option<usize>,
    /// Standard deviation of the noise, of real and imaginary part each in k-space [default: 0.001; of calibrate 0.05]
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
        let usual = if images.pixels() == 1 { OperatorKind::Dense } else { OperatorKind::Mask };
        let kind = self.operator.unwrap_or(usual);
        self.check(kind)?;
        let keep = self.keep.or(self.delete.map(|d| 1.0 - d)).unwrap_or(0.25);
        Ok(match kind {
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
            OperatorKind::Fourier => {
                let Shape { h, w, c, .. } = images;
                if c != 1 || h * w == 1 || h.max(w) > LARGEST {
                    let expected = format!("images with one channel, of at most {LARGEST} x {LARGEST} pixels");
                    return Err(Error::mismatch("--operator fourier", expected, format!("{h} x {w} x {c}")));
                }
                let (kept, center) = self.columns(w)?;
                Measured::Fourier(corruption::random_columns(images, kept, center, seed))
            }
            OperatorKind::Blur => Measured::Blur(self.blur(images)?),
            OperatorKind::Downsample => {
                let (factor, Shape { h, w, .. }) = (self.factor.unwrap_or(4), images);
                if !h.is_multiple_of(factor) || !w.is_multiple_of(factor) {
                    return Err(Error::mismatch("--factor", format!("a divisor of {h} and {w}"), factor));
                }
                Measured::Downsample(factor)
            }
        })
    }

    /// Refuses options of other operators.
    fn check(&self, kind: OperatorKind) -> Result<()> {
        use OperatorKind::{Blur, Dense, Downsample, Fourier, Mask};
        let options = [
            ("--keep", self.keep.is_some(), &[Mask, Dense][..]),
            ("--delete", self.delete.is_some(), &[Mask, Dense]),
            ("--rows", self.rows.is_some(), &[Dense]),
            ("--acceleration", self.acceleration.is_some(), &[Fourier]),
            ("--center", self.center.is_some(), &[Fourier]),
            ("--kernel", self.kernel.is_some(), &[Blur]),
            ("--kernel-size", self.kernel_size.is_some(), &[Blur]),
            ("--kernel-std", self.kernel_std.is_some(), &[Blur]),
            ("--angle", self.angle.is_some(), &[Blur]),
            ("--factor", self.factor.is_some(), &[Downsample]),
        ];
        for (name, given, kinds) in options {
            if given && !kinds.contains(&kind) {
                let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
                let expected = format!("--operator {}", names.join(" or "));
                return Err(Error::mismatch(name, expected, format!("--operator {}", kind.name())));
            }
        }
        Ok(())
    }

    /// The kernel of a blur.
    fn blur(&self, images: Shape) -> Result<Samples<f32>> {
        let (size, smaller) = (self.kernel_size.unwrap_or(9), images.h.min(images.w));
        if size > smaller {
            let expected = format!("at most {smaller} pixels, as the images have");
            return Err(Error::mismatch("--kernel-size", expected, size));
        }
        let angle = self.angle.unwrap_or(45.0);
        if !angle.is_finite() {
            return Err(Error::mismatch("--angle", "a number", angle));
        }
        let kernel = match self.kernel.unwrap_or(Kernel::Gaussian) {
            Kernel::Gaussian if self.angle.is_some() => {
                return Err(Error::mismatch("--angle", "--kernel motion", "--kernel gaussian"));
            }
            Kernel::Motion if self.kernel_std.is_some() => {
                return Err(Error::mismatch("--kernel-std", "--kernel gaussian", "--kernel motion"));
            }
            Kernel::Gaussian => filter::gaussian(size, self.kernel_std.unwrap_or(size as f64 / 6.0)),
            Kernel::Motion => filter::motion(size, angle),
        };
        Ok(Samples::new(Shape::new(1, size, size, 1), kernel.into_iter().map(|k| k as f32).collect()))
    }

    /// The probability with which one of `w` columns of k-space is kept, and how many to either side of the central one always are.
    ///
    /// In the paper ±⌈60/R⌉ of 320 columns are kept, and the others with probability 200/(320 R - 120), which is what leaves
    /// 320/R of them if the center is 120/R wide. In proportion that is ±⌈3W/(16 R)⌉ and 5/(8 R - 3), for any width.
    fn columns(&self, w: usize) -> Result<(f64, usize)> {
        let r = self.acceleration.unwrap_or(6.0);
        let Some(center) = self.center else {
            return Ok((5.0 / (8.0 * r - 3.0), (3.0 * w as f64 / (16.0 * r)).ceil() as usize));
        };
        let (always, all) = (2.0 * center as f64 + 1.0, w as f64 / r);
        if always > all {
            let expected = format!("at most {all:.1} columns, {w} / {r}, in the center");
            return Err(Error::mismatch("--center", expected, format!("2 x {center} + 1")));
        }
        Ok(((all - always) / (w as f64 - always).max(1.0), center))
    }
}

/// `--kernel`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Kernel {
    Gaussian,
    Motion,
}

/// A factor of 1 or more.
fn acceleration(text: &str) -> std::result::Result<f64, String> {
    let value = text.parse().map_err(|_| "expected a number of 1 or more".to_owned())?;
    if (1.0..f64::INFINITY).contains(&value) { Ok(value) } else { Err("expected a number of 1 or more".to_owned()) }
}
