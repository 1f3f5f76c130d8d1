//! Images from files: PNG, JPEG, a folder of them, `.npy`, MNIST's IDX, or CIFAR-10's batches; 8-bit values become numbers in [-2, 2].

use super::npz::MAX_EXPANSION;
use super::place::Place;
use super::{DType, Data, Samples, cifar, npy};
use crate::backend::Shape;
use crate::{Error, Result};
use flate2::bufread::GzDecoder;
use image::error::{LimitError, LimitErrorKind};
use image::imageops::FilterType;
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageError, ImageReader};
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Values of the darkest byte; what is padded is this.
pub const BLACK: f32 = -2.0;

/// More than PNG (8 pixels a byte, deflated by 1032 at most) or JPEG (half a bit for 64 pixels) ever reach.
const MAX_PIXELS_PER_BYTE: u64 = 1 << 14;

/// The number for a byte: v 4/256 - 2, in [-2, 2).
pub fn from_byte(v: u8) -> f32 {
    f32::from(v) * (4.0 / 256.0) + BLACK
}

/// The nearest byte for a number; those beyond black and white are clamped.
pub fn to_byte(x: f32) -> u8 {
    ((x - BLACK) * (256.0 / 4.0)).round() as u8 // saturates
}

/// What to read of the input.
#[derive(Clone, Copy, Default, Debug)]
pub struct Selection {
    /// At most so many images, from the first; all of them by default.
    pub count: Option<usize>,
    /// PNG and JPEG are cropped to a centred square and scaled to this many pixels a side; by default all must have one size.
    pub size: Option<u32>,
}

/// Reads images (N, H, W, C) from a folder of PNG and JPEG (in order of name, turned as their EXIF data say), one such file, a `.npy` of uint8 or floats,
/// (N, H, W, C), (N, H, W) or vectors (N, D), an IDX file (MNIST), which may be gzipped, or CIFAR-10's binary version: one `.bin`,
/// or all `data_batch_*.bin` of a folder or of the official `.tar.gz`. Floats are taken as they are.
///
/// # Errors
/// [`Error::Io`]; a mismatch that names the file: not such a file, no image, different sizes, transparent pixels, floats beyond ±4,
/// which are no image in [-2, 2].
pub fn read(path: &Path, selection: Selection) -> Result<Samples<f32>> {
    let count = selection.count.unwrap_or(usize::MAX);
    if selection.size.is_some() && (cifar::is_cifar(path) || !(path.is_dir() || is_picture(path))) {
        return Err(
            Place::file(path).mismatch("PNG or JPEG files, which can be resized (--size)", "images of one size")
        );
    }
    let images = if cifar::is_cifar(path) {
        cifar::read(path, count)?
    } else if path.is_dir() {
        read_pictures(&pictures_in(path)?, selection)?
    } else if is_picture(path) {
        read_pictures(&[path.to_owned()], selection)?
    } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npy")) {
        read_npy(path, count)?
    } else {
        read_idx(path, count)?
    };
    if images.shape.is_empty() {
        return Err(Place::file(path).mismatch("at least one image", "none"));
    }
    Ok(images)
}

/// The images with `p` black pixels around each.
pub fn pad(images: &Samples<f32>, p: usize) -> Samples<f32> {
    let Shape { n, h, w, c } = images.shape;
    let shape = Shape::new(n, h + 2 * p, w + 2 * p, c);
    let mut data = vec![BLACK; shape.len()];
    for (i, line) in images.data.chunks_exact(w * c).enumerate() {
        let (sample, row) = (i / h, i % h + p);
        let start = ((sample * shape.h + row) * shape.w + p) * c;
        data[start..start + w * c].copy_from_slice(line);
    }
    Samples::new(shape, data)
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|known| e.eq_ignore_ascii_case(known)))
}

fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| Error::io(folder, "read", e);
    let entries = fs::read_dir(folder).map_err(failed)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>().map_err(failed)?;
    let mut pictures: Vec<_> = paths.into_iter().filter(|p| is_picture(p)).collect();
    pictures.sort_unstable();
    if pictures.is_empty() {
        return Err(Place::file(folder).mismatch("PNG or JPEG files", "none"));
    }
    Ok(pictures)
}

fn read_pictures(paths: &[PathBuf], selection: Selection) -> Result<Samples<f32>> {
    let n = paths.len().min(selection.count.unwrap_or(usize::MAX));
    let mut shape = Shape::new(0, 0, 0, 0);
    let mut data = Vec::new();
    for path in &paths[..n] {
        let (found, bytes) = read_picture(path, selection.size)?;
        if shape.n == 0 {
            shape = found;
        } else if shape.with_n(1) != found {
            let (first, extents) = (paths[0].display(), |s: Shape| format!("{} x {} x {}", s.h, s.w, s.c));
            let expected = format!("height x width x channels {} as in {first} (or set a size)", extents(shape));
            return Err(Place::file(path).mismatch(expected, extents(found)));
        }
        data.extend(bytes.into_iter().map(from_byte));
    }
    Ok(Samples::new(shape.with_n(n), data))
}

/// A picture's extents, N = 1, and its bytes: gray or RGB.
fn read_picture(path: &Path, size: Option<u32>) -> Result<(Shape, Vec<u8>)> {
    let place = Place::file(path);
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let bytes = file.metadata().map_err(|e| place.read_error(e))?.len();
    let picture = decode(BufReader::new(file), bytes).map_err(|e| match e {
        ImageError::IoError(e) => place.read_error(e),
        e => place.mismatch("a PNG or JPEG picture", e),
    })?;
    if picture.color().has_alpha() && picture.to_rgba8().pixels().any(|p| p[3] != u8::MAX) {
        return Err(place.mismatch("a picture without transparency", "transparent pixels"));
    }
    let picture = match size {
        Some(s) => picture.resize_to_fill(s, s, FilterType::Triangle),
        None => picture,
    };
    let (w, h) = (picture.width() as usize, picture.height() as usize);
    Ok(match picture.color().has_color() {
        true => (Shape::new(1, h, w, 3), picture.into_rgb8().into_raw()),
        false => (Shape::new(1, h, w, 1), picture.into_luma8().into_raw()),
    })
}

/// Decodes a file of `size` bytes, unless it claims more pixels than one so long can hold.
fn decode(file: BufReader<File>, size: u64) -> image::ImageResult<DynamicImage> {
    let mut decoder = ImageReader::new(file).with_guessed_format()?.into_decoder()?;
    let (w, h) = decoder.dimensions();
    if u64::from(w) * u64::from(h) > size.saturating_mul(MAX_PIXELS_PER_BYTE) {
        return Err(ImageError::Limits(LimitError::from_kind(LimitErrorKind::DimensionError)));
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms); // damaged EXIF data, as viewers do
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// At most the first `count` images.
fn read_npy(path: &Path, count: usize) -> Result<Samples<f32>> {
    let place = Place::file(path);
    let array = npy::read_rows(path, &[DType::U8, DType::F32, DType::F64], count)?;
    let shape = match array.shape[..] {
        [n, h, w, c] => Shape::new(n, h, w, c),
        [n, h, w] => Shape::new(n, h, w, 1),
        [n, d] => Shape::rows(n, d),
        _ => return Err(place.mismatch("shape (N, H, W, C), (N, H, W) or (N, D)", array.shape_text())),
    };
    let data = match array.data {
        Data::U8(bytes) => bytes.into_iter().map(from_byte).collect(),
        floats => floats.into_f32(),
    };
    if let Some(i) = data.iter().position(|x| x.is_nan() || x.abs() > 4.0) {
        return Err(match data[i].is_finite() {
            true => place.mismatch("images in [-2, 2] (floats up to 4 in magnitude, or uint8)", data[i]),
            false => Error::NonFinite { place: format!("{place}, image {}", i / shape.row()) },
        });
    }
    Ok(Samples::new(shape, data))
}

/// IDX: big-endian magic 0x0803 (unsigned bytes, three extents), N, H, W, then the bytes, of at most the first `count` images.
fn read_idx(path: &Path, count: usize) -> Result<Samples<f32>> {
    let place = Place::file(path);
    let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
    let size = file.metadata().map_err(|e| place.read_error(e))?.len();
    let mut file = BufReader::new(file);
    let mut start = [0; 2];
    let form =
        "a folder, .png, .jpg, .npy, CIFAR-10's .bin or .tar.gz, or an IDX file of images (MNIST), plain or gzipped";
    if size < 16 || file.read_exact(&mut start).is_err() {
        return Err(place.mismatch(form, format_args!("{size} bytes")));
    }
    let whole = io::Cursor::new(start).chain(file);
    // no more is allocated than the file can hold
    let (mut source, most): (Box<dyn Read>, u64) = match start {
        [0x1f, 0x8b] => (Box::new(GzDecoder::new(BufReader::new(whole))), size.saturating_mul(MAX_EXPANSION)),
        _ => (Box::new(whole), size),
    };
    let mut header = [0; 16];
    source.read_exact(&mut header).map_err(|e| place.read_error(e))?;
    let [magic, n, h, w] = [0, 4, 8, 12].map(|i| u32::from_be_bytes([0, 1, 2, 3].map(|j| header[i + j])) as usize);
    if magic != 0x0803 {
        return Err(place.mismatch(form, "another file"));
    }
    let bytes = [h, w].into_iter().try_fold(n, usize::checked_mul).filter(|b| *b as u64 <= most);
    let Some(bytes) = bytes else {
        return Err(place.mismatch(format_args!("at most {most} bytes"), format_args!("{n} x {h} x {w}")));
    };
    let read = n.min(count);
    let mut data = vec![0; bytes / n.max(1) * read];
    source.read_exact(&mut data).map_err(|e| place.read_error(e))?;
    // The end must follow the last image; of a gzipped file, reading it checks the sum.
    if read == n && source.read(&mut [0]).map_err(|e| place.read_error(e))? != 0 {
        return Err(place.mismatch(format_args!("{n} images of {h} x {w}"), "more"));
    }
    Ok(Samples::new(Shape::new(read, h, w, 1), data.into_iter().map(from_byte).collect()))
}
