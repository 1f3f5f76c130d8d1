//! Observation files: what was measured of each sample, how, and with how much noise.

mod apply;
mod bind;
mod select;

use super::array::{Array, Data};
use super::picture::Tile;
use super::place::Place;
use super::{DType, Npz, Samples, atomic, npy, npz};
use crate::backend::Shape;
use crate::ops::fourier::{LARGEST, Transform};
use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) use apply::Applied;

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
}

impl OperatorKind {
    /// As the command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Mask => "mask",
            Self::Dense => "dense",
            Self::Fourier => "fourier",
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
}

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
    /// `y` (N, H, W, C) for a mask, (N, 1, 1, M) for a dense matrix, (N, H, W, 2) for k-space; where a mask is 0, y is set to 0.
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
    /// As [`Observations::new`]; [`Error::Io`]; a mismatch for an array that is missing (and what is there), or has another rank or
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
    /// [`Error::Io`].
    pub fn write(&self) -> Result<()> {
        self.stage()?.commit()
    }
    /// As [`Observations::write`], but the file waits for its name.
    ///
    /// # Errors
    /// [`Error::Io`].
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
            Measured::Mask(_) => Some(self.y.shape.with_n(1)),
            Measured::Fourier(_) => Some(self.y.shape.with_n(1).with_c(1)),
            Measured::Dense(_) => None,
        }
    }

    /// Observation `n` as an image: its pixels; what k-space is with 0 where nothing was measured, Aᵀ y; or the back-projection
    /// (D / M) Aᵀ y, which is x itself on average over random unit directions.
    pub fn back_projection(&self, n: usize) -> Vec<f32> {
        let y = self.y.row(n);
        match &self.measured {
            Measured::Mask(_) => y.to_vec(),
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
            Measured::Dense(_) | Measured::Fourier(_) => Tile::Image(image),
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

/// Sets y to 0 where the mask, of pixels or of columns, is 0, whatever it is there.
fn zero_unobserved(y: &mut Samples<f32>, mask: &Samples<u8>) {
    for (sample, row) in y.data.chunks_exact_mut(y.shape.row()).enumerate() {
        let pixels = row.chunks_exact_mut(y.shape.c).zip(mask.row(sample).iter().cycle());
        pixels.filter(|(_, m)| **m == 0).for_each(|(pixel, _)| pixel.fill(0.0));
    }
}

/// The extents of `array`, as many as `form` shows, and none of them 0.
fn extents<const R: usize>(place: Place<'_>, form: &str, array: &Array) -> Result<[usize; R]> {
    match <[usize; R]>::try_from(array.shape.as_slice()) {
        Ok(extents) if !extents.contains(&0) => Ok(extents),
        _ => Err(place.mismatch(format_args!("shape {form} with nothing empty"), array.shape_text())),
    }
}

/// Refuses extents `found` that are not those `expected`, whose leading one may also be 1, because of the array `other`.
fn check_extents(place: Place<'_>, form: &str, found: Shape, expected: Shape, other: &str) -> Result<()> {
    if found == expected || found == expected.with_n(1) {
        return Ok(());
    }
    let expected = format!("{form} = {expected:?} to go with {other}");
    Err(place.mismatch(expected, format_args!("{found:?}")))
}

/// Refuses values that are neither 0 nor 1.
fn check_bits(place: Place<'_>, mask: &Samples<u8>) -> Result<()> {
    mask.data.iter().find(|v| **v > 1).map_or(Ok(()), |v| Err(place.mismatch("only 0 and 1", v)))
}

/// Refuses values that are not finite.
fn check_finite(place: Place<'_>, x: &Samples<f32>) -> Result<()> {
    let Some(at) = x.data.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let (sample, element) = (at / x.shape.row(), at % x.shape.row());
    Err(Error::NonFinite { place: format!("{place}, sample {sample}, element {element}") })
}

/// The elements as 0 and 1, or the first that is neither.
fn binary(data: Data) -> std::result::Result<Vec<u8>, f32> {
    let bit = |v: f32| if v == 0.0 || v == 1.0 { Ok(v as u8) } else { Err(v) };
    match data {
        Data::Bool(v) => Ok(v.into_iter().map(u8::from).collect()),
        data => data.into_f32().into_iter().map(bit).collect(),
    }
}
