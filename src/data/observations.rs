//! Observation files: what was measured of each sample, how, and with how much noise.

mod apply;
mod bind;
mod checks;
mod select;

use super::array::{Array, Data};
use super::picture::Tile;
use super::place::Place;
use super::{DType, Npz, Samples, atomic, npy, npz};
use crate::Result;
use crate::backend::Shape;
use crate::ops::fourier::{LARGEST, Transform};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use apply::{Applied, FilterF64};
use checks::{binary, check_bits, check_extents, check_finite, extents, zero_unobserved};

const FLOATS: &[DType] = &[DType::F32, DType::F64];

/// Which operator an observation file is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperatorKind {
    /// Some pixels were measured: array `mask`.
    Mask,
    /// A matrix per sample: array `A`.
    Dense,
    /// Some columns of k-space, as in MRI: array `mask`.
    Fourier,
    /// Periodic blur: array `kernel`.
    Blur,
    /// Bicubic downsampling: `factor`.
    Downsample,
}

impl OperatorKind {
    /// As the command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Dense => "dense",
            Self::Fourier => "fourier",
            Self::Blur => "blur",
            Self::Downsample => "downsample",
        }
    }
}

/// The arrays of the operator; a leading 1 stands for all samples.
#[derive(Clone, PartialEq, Debug)]
pub enum Measured {
    /// (N or 1, H, W, 1): 1 where a pixel was measured, else 0.
    Mask(Samples<u8>),
    /// (N or 1, 1, M, D): y = A x.
    Dense(Samples<f32>),
    /// (N or 1, 1, W, 1): 1 where a column of the 2-D Fourier transform was measured, else 0.
    Fourier(Samples<u8>),
    /// (1, A, B, 1): the kernel of a periodic blur, the image of a point.
    Blur(Samples<f32>),
    /// Pixels of the image for one of y, along each side.
    Downsample(usize),
}

/// Factors of downsampling at most: the kernel has 16 f² elements.
const LARGEST_FACTOR: usize = 64;

/// The observations of N samples, checked: extents agree, and every number that counts is finite.
#[derive(Clone, PartialEq, Debug)]
pub struct Observations {
    path: PathBuf,
    y: Samples<f32>,
    noise: Vec<f64>,
    measured: Measured,
}

impl Observations {
    /// Observations `y` with noise of standard deviation `noise` (one, or one for each), that are or will be in the file `path`.
    ///
    /// # Shapes
    /// `y` (N, H, W, C) for a mask or blur, (N, 1, 1, M) for a dense matrix, (N, H, W, 2) for k-space, (N, H / f, W / f, C)
    /// for downsampling; where a mask is 0, y is set to 0.
    ///
    /// # Errors
    /// A mismatch that names file and array: extents that do not agree, a mask that is not 0 or 1, noise that is not positive;
    /// a non-finite value in what was observed.
    pub fn new(path: &Path, mut y: Samples<f32>, noise: Vec<f64>, measured: Measured) -> Result<Self> {
        let n = y.shape.n;
        let at = |array| Place::array(path, array);
        match &measured {
            Measured::Mask(mask) => {
                check_extents(at("mask"), "(N or 1, H, W, 1)", mask.shape, y.shape.with_c(1), "y")?;
                check_bits(at("mask"), mask)?;
                zero_unobserved(&mut y, mask);
            }
            Measured::Dense(a) => {
                check_extents(at("A"), "(N or 1, M, D)", a.shape, Shape::new(n, 1, y.shape.c, a.shape.c), "y")?;
                check_finite(at("A"), a)?;
            }
            Measured::Fourier(mask) => {
                let Shape { h, w, c, .. } = y.shape;
                if c != 2 || h.max(w) > LARGEST {
                    let expected = format!("(N, H, W, 2), real and imaginary part, H and W at most {LARGEST}");
                    return Err(at("y").mismatch(expected, format_args!("{:?}", y.shape)));
                }
                check_extents(at("mask"), "(N or 1, 1, W, 1)", mask.shape, Shape::new(n, 1, w, 1), "y")?;
                check_bits(at("mask"), mask)?;
                zero_unobserved(&mut y, mask);
            }
            Measured::Blur(kernel) => {
                if kernel.shape.n != 1 || kernel.shape.c != 1 || kernel.data.is_empty() {
                    return Err(at("kernel").mismatch("(1, h, w, 1)", format_args!("{:?}", kernel.shape)));
                }
                check_finite(at("kernel"), kernel)?;
                if kernel.data.iter().all(|k| *k == 0.0) {
                    return Err(at("kernel").mismatch("a number that is not 0", "none"));
                }
            }
            Measured::Downsample(factor) => {
                let within = |side: usize| side.checked_mul(*factor).is_some_and(|side| side <= LARGEST);
                if !(1..=LARGEST_FACTOR).contains(factor) || !within(y.shape.h) || !within(y.shape.w) {
                    let expected = format!(
                        "a factor from 1 to {LARGEST_FACTOR}, for images of at most {LARGEST} x {LARGEST} pixels"
                    );
                    return Err(at("factor").mismatch(expected, factor));
                }
            }
        }
        check_finite(at("y"), &y)?;
        if noise.len() != 1 && noise.len() != n {
            return Err(at("noise").mismatch(format_args!("a scalar or {n} values, as y has"), noise.len()));
        }
        // Without noise the posterior of a redundant measurement does not exist, and its solve divides by zero.
        if let Some(bad) = noise.iter().find(|s| !(**s > 0.0 && s.is_finite())) {
            return Err(at("noise").mismatch("a positive standard deviation (1e-3 for data without noise)", bad));
        }
        Ok(Self { path: path.to_owned(), y, noise, measured })
    }

    /// Reads an `.npz` with `y`, `noise` and the arrays of the operator.
    ///
    /// # Errors
    /// As [`Observations::new`]; [`crate::Error::Io`]; a mismatch for an array that is missing (and what is there), or has another rank or
    /// type.
    pub fn read(path: &Path, kind: OperatorKind) -> Result<Self> {
        let mut npz = Npz::open(path)?;
        let at = |array| Place::array(path, array);
        let y = npz.read("y", FLOATS)?;
        let noise = npz.read("noise", FLOATS)?;
        let noise = match (noise.shape.len(), noise.data) {
            (0 | 1, Data::F64(v)) => v,
            (0 | 1, data) => data.into_f32().into_iter().map(f64::from).collect(),
            _ => return Err(at("noise").mismatch("shape () or (N,)", super::array::shape_text(&noise.shape))),
        };
        let (y, measured) = match kind {
            OperatorKind::Mask => {
                let mask = read_mask(&mut npz, "(N or 1, H, W, 1)")?;
                let [n, h, w, c] = extents(at("y"), "(N, H, W, C)", &y)?;
                (Samples::new(Shape::new(n, h, w, c), y.data.into_f32()), Measured::Mask(mask))
            }
            OperatorKind::Fourier => {
                let mask = read_mask(&mut npz, "(N or 1, 1, W, 1)")?;
                let [n, h, w, c] = extents(at("y"), "(N, H, W, 2)", &y)?;
                (Samples::new(Shape::new(n, h, w, c), y.data.into_f32()), Measured::Fourier(mask))
            }
            OperatorKind::Blur => {
                let kernel = npz.read("kernel", FLOATS)?;
                let [a, b] = extents(at("kernel"), "(h, w)", &kernel)?;
                let kernel = Samples::new(Shape::new(1, a, b, 1), kernel.data.into_f32());
                let [n, h, w, c] = extents(at("y"), "(N, H, W, C)", &y)?;
                (Samples::new(Shape::new(n, h, w, c), y.data.into_f32()), Measured::Blur(kernel))
            }
            OperatorKind::Downsample => {
                let factor = npz.read("factor", &[DType::I64, DType::U8, DType::F32, DType::F64])?;
                let shape = factor.shape_text();
                let factor = match (factor.shape.len(), factor.data.into_f32().as_slice()) {
                    (0 | 1, &[f]) if f.fract() == 0.0 && (1.0..=LARGEST_FACTOR as f32).contains(&f) => f as usize,
                    (0 | 1, &[f]) => {
                        let expected = format!("a whole number from 1 to {LARGEST_FACTOR}");
                        return Err(at("factor").mismatch(expected, f));
                    }
                    _ => return Err(at("factor").mismatch("one number", shape)),
                };
                let [n, h, w, c] = extents(at("y"), "(N, H / factor, W / factor, C)", &y)?;
                (Samples::new(Shape::new(n, h, w, c), y.data.into_f32()), Measured::Downsample(factor))
            }
            OperatorKind::Dense => {
                let a = npz.read("A", FLOATS)?;
                let [n, m, d] = extents(at("A"), "(N or 1, M, D)", &a)?;
                let a = Samples::new(Shape::new(n, 1, m, d), a.data.into_f32());
                let [n, m] = extents(at("y"), "(N, M)", &y)?;
                (Samples::new(Shape::rows(n, m), y.data.into_f32()), Measured::Dense(a))
            }
        };
        Self::new(path, y, noise, measured)
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn write(&self) -> Result<()> {
        self.stage()?.commit()
    }
    /// As [`Observations::write`], but the file waits for its name.
    ///
    /// # Errors
    /// [`crate::Error::Io`].
    pub fn stage(&self) -> Result<atomic::Staged> {
        npz::stage(&self.path, |npz| self.each_array(|name, array| npz.add(name, &array)))
    }

    /// SHA-256, in hexadecimal, of all that counts: the same for files that differ in compression, in element types that hold the
    /// same values, or where the mask is 0.
    pub fn digest(&self) -> String {
        let mut hash = Hash(Sha256::new());
        self.each_array(|name, array| {
            hash.0.update(name);
            npy::write_to(&mut hash, &array)
        })
        .expect("a hash takes any bytes");
        hash.0.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The arrays of the file, one at a time.
    fn each_array(&self, mut f: impl FnMut(&str, Array) -> io::Result<()>) -> io::Result<()> {
        let Shape { n, h, w, c } = self.y.shape;
        let scalar = self.noise.len() == 1;
        f("noise", Array::new(&[n][usize::from(scalar)..], Data::F64(self.noise.clone())))?;
        let y = self.y.data.clone();
        match &self.measured {
            Measured::Mask(Samples { shape, data }) | Measured::Fourier(Samples { shape, data }) => {
                f("y", Array::f32(&[n, h, w, c], y))?;
                let bits = data.iter().map(|m| *m == 1).collect();
                f("mask", Array::new(&[shape.n, shape.h, shape.w, 1], Data::Bool(bits)))
            }
            Measured::Blur(Samples { shape, data }) => {
                f("y", Array::f32(&[n, h, w, c], y))?;
                f("kernel", Array::f32(&[shape.h, shape.w], data.clone()))
            }
            Measured::Downsample(factor) => {
                f("y", Array::f32(&[n, h, w, c], y))?;
                f("factor", Array::new(&[], Data::I64(vec![*factor as i64])))
            }
            Measured::Dense(Samples { shape, data }) => {
                f("y", Array::f32(&[n, c], y))?;
                f("A", Array::f32(&[shape.n, shape.w, shape.c], data.clone()))
            }
        }
    }

    /// The file that they are, or will be, in.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.y.shape.n
    }
    /// Never: a file without samples is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// What was measured: (N, H, W, C) or (N, H, W, 2), 0 where the mask is 0, or (N, 1, 1, M).
    pub fn y(&self) -> &Samples<f32> {
        &self.y
    }
    /// Standard deviations: one for all, or one for each.
    pub fn noise(&self) -> &[f64] {
        &self.noise
    }
    /// How it was measured.
    pub fn measured(&self) -> &Measured {
        &self.measured
    }
    /// Extents of the images, with N = 1, where the file tells them: a matrix does not.
    pub fn image(&self) -> Option<Shape> {
        match self.measured {
            Measured::Mask(_) | Measured::Blur(_) => Some(self.y.shape.with_n(1)),
            Measured::Fourier(_) => Some(self.y.shape.with_n(1).with_c(1)),
            Measured::Downsample(factor) => {
                let Shape { h, w, c, .. } = self.y.shape;
                Some(Shape::new(1, h * factor, w * factor, c))
            }
            Measured::Dense(_) => None,
        }
    }

    /// Observation `n` as an image: its pixels, or f² Aᵀ y of downsampled ones; what k-space is with 0 where nothing was measured, Aᵀ y; or the back-projection
    /// (D / M) Aᵀ y, which is x itself on average over random unit directions.
    pub fn back_projection(&self, n: usize) -> Vec<f32> {
        let y = self.y.row(n);
        match &self.measured {
            Measured::Mask(_) | Measured::Blur(_) => y.to_vec(),
            Measured::Downsample(factor) => {
                let image = self.image().expect("one whose sides it tells");
                let y: Vec<f64> = y.iter().map(|y| f64::from(*y)).collect();
                let x = Applied::new(&self.measured, image).adjoint(n, &y);
                x.into_iter().map(|x| x as f32 * (factor * factor) as f32).collect()
            }
            Measured::Dense(a) => {
                let (m, d) = (a.shape.w, a.shape.c);
                let mut x = vec![0.0; d];
                for (direction, y) in a.row(n).chunks_exact(d).zip(y) {
                    x.iter_mut().zip(direction).for_each(|(x, a)| *x += d as f32 / m as f32 * y * a);
                }
                x
            }
            Measured::Fourier(mask) => {
                let Shape { h, w, .. } = self.y.shape;
                let mut x = vec![0.0; h * w];
                Transform::new(h, w).adjoint(|column| mask.row(n)[column] == 1, y, &mut x);
                x
            }
        }
    }
    /// The picture of observation `n`, whose [`Observations::back_projection`] is `image`.
    pub fn tile<'a>(&'a self, n: usize, image: &'a [f32]) -> Tile<'a> {
        match &self.measured {
            Measured::Mask(mask) => Tile::Observed(image, mask.row(n)),
            _ => Tile::Image(image),
        }
    }

    /// Refuses a model whose images (N ignored) these observations cannot be of.
    ///
    /// # Errors
    /// A mismatch that names the file and the array.
    pub fn check_image(&self, image: Shape) -> Result<()> {
        let at = |array| Place::array(&self.path, array);
        let Shape { h, w, c, .. } = image;
        if let Measured::Dense(a) = &self.measured {
            let expected = format_args!("(N or 1, M, {}), D of the model", image.row());
            return if a.shape.c == image.row() { Ok(()) } else { Err(at("A").mismatch(expected, a.shape.c)) };
        }
        if self.image() == Some(image.with_n(1)) {
            return Ok(());
        }
        let expected = match &self.measured {
            Measured::Fourier(_) if c != 1 => format!("a model of images with one channel, not of {h} x {w} x {c}"),
            Measured::Fourier(_) => format!("(N, {h}, {w}, 2), k-space of the model's images"),
            Measured::Downsample(f) => format!("(N, H / {f}, W / {f}, {c}) of the model's images, {h} x {w} x {c}"),
            _ => format!("(N, {h}, {w}, {c}), the model's images"),
        };
        Err(at("y").mismatch(expected, format_args!("{:?}", self.y.shape)))
    }
}

/// The array `mask` of `npz`, of 0 and 1.
fn read_mask(npz: &mut Npz, form: &str) -> Result<Samples<u8>> {
    let array = npz.read("mask", &[DType::Bool, DType::U8, DType::F32, DType::F64, DType::I64])?;
    let at = Place::array(npz.path(), "mask");
    let [n, h, w, one] = extents(at, form, &array)?;
    Ok(Samples::new(Shape::new(n, h, w, one), binary(array.data).map_err(|v| at.mismatch("only 0 and 1", v))?))
}

/// A hash to write to.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
