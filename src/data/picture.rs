//! Pictures that a person can judge: tiles in rows, enlarged without smoothing.

use super::{atomic, images};
use crate::Result;
use crate::backend::Shape;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ExtendedColorType, ImageEncoder, Rgb, RgbImage};
use std::io;
use std::path::Path;

/// Tiles are enlarged by the largest whole factor that keeps them within so many pixels.
const TILE: usize = 128;

/// Pixels between tiles.
const GAP: usize = 4;

const BACKGROUND: Rgb<u8> = Rgb([24, 24, 24]);

/// A pixel that was not measured: no gray, so that it is not taken for one.
const UNOBSERVED: Rgb<u8> = Rgb([58, 74, 120]);

/// A pixel that is not a number.
const NON_FINITE: Rgb<u8> = Rgb([255, 0, 255]);

/// viridis at 0, 1/8, .., 1 (matplotlib, CC0): equal steps look equal.
const VIRIDIS: [[u8; 3]; 9] = [
    [0x44, 0x01, 0x54],
    [0x47, 0x2d, 0x7b],
    [0x3b, 0x52, 0x8b],
    [0x2c, 0x72, 0x8e],
    [0x21, 0x91, 0x8c],
    [0x28, 0xae, 0x80],
    [0x5e, 0xc9, 0x62],
    [0xad, 0xdc, 0x30],
    [0xfd, 0xe7, 0x25],
];

/// One small picture of a grid; images are (H, W, C), in [-2, 2], flattened.
#[derive(Clone, Copy, Debug)]
pub enum Tile<'a> {
    /// Nothing.
    Empty,
    /// An image.
    Image(&'a [f32]),
    /// An image and which of its pixels were measured, (H, W) of 0 and 1; the others have a colour of their own.
    Observed(&'a [f32], &'a [u8]),
    /// Magnitudes (the standard deviation): 0 is dark, the second value and above bright; channels are averaged.
    Magnitude(&'a [f32], f32),
}

impl Tile<'_> {
    /// The colour of pixel number `i`.
    fn colour(&self, i: usize, c: usize) -> Rgb<u8> {
        let pixel = |x: &[f32]| match x[i * c..(i + 1) * c] {
            [r, g, b] => [r, g, b],
            ref channels => [channels.iter().sum::<f32>() / c as f32; 3],
        };
        let bytes = |x: [f32; 3]| match x.iter().all(|v| v.is_finite()) {
            true => Rgb(x.map(images::to_byte)),
            false => NON_FINITE,
        };
        match *self {
            Tile::Empty => BACKGROUND,
            Tile::Observed(_, mask) if mask[i] == 0 => UNOBSERVED,
            Tile::Image(x) | Tile::Observed(x, _) => bytes(pixel(x)),
            Tile::Magnitude(x, scale) => viridis(pixel(x).iter().sum::<f32>() / 3.0 / scale.max(f32::MIN_POSITIVE)),
        }
    }
}

/// The colour of `v` in [0, 1].
fn viridis(v: f32) -> Rgb<u8> {
    if !v.is_finite() {
        return NON_FINITE;
    }
    let at = v.clamp(0.0, 1.0) * (VIRIDIS.len() - 1) as f32;
    let i = (at as usize).min(VIRIDIS.len() - 2);
    let between = |a: u8, b: u8| (f32::from(a) + (f32::from(b) - f32::from(a)) * (at - i as f32)).round() as u8;
    Rgb([0, 1, 2].map(|c| between(VIRIDIS[i][c], VIRIDIS[i + 1][c])))
}

/// Rows of tiles of images with the extents of `image` (N ignored).
pub fn grid(image: Shape, rows: &[Vec<Tile<'_>>]) -> RgbImage {
    let Shape { h, w, c, .. } = image;
    let zoom = (TILE / h.max(w)).max(1);
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let [height, width] = [(rows.len(), h), (columns, w)].map(|(n, side)| n * (side * zoom + GAP) + GAP);
    let mut picture = RgbImage::from_pixel(width as u32, height as u32, BACKGROUND);
    for (row, tiles) in rows.iter().enumerate() {
        for (column, tile) in tiles.iter().enumerate() {
            let (top, left) = (row * (h * zoom + GAP) + GAP, column * (w * zoom + GAP) + GAP);
            for (y, x) in (0..h * zoom).flat_map(|y| (0..w * zoom).map(move |x| (y, x))) {
                let colour = tile.colour(y / zoom * w + x / zoom, c);
                picture.put_pixel((left + x) as u32, (top + y) as u32, colour);
            }
        }
    }
    picture
}

/// Writes a PNG, atomically.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn write(path: &Path, picture: &RgbImage) -> Result<()> {
    stage(path, picture)?.commit()
}

/// As [`write()`], but the file waits for its name.
///
/// # Errors
/// [`crate::Error::Io`].
pub fn stage(path: &Path, picture: &RgbImage) -> Result<atomic::Staged> {
    atomic::stage(path, |w| encode(w, picture))
}

/// The bytes of a PNG.
///
/// # Errors
/// That of the writer.
pub fn encode(w: impl io::Write, picture: &RgbImage) -> io::Result<()> {
    let (width, height) = picture.dimensions();
    // pixels repeated in runs, which filters only hide: half the size of the default
    let encoder = PngEncoder::new_with_quality(w, CompressionType::Best, FilterType::NoFilter);
    encoder.write_image(picture, width, height, ExtendedColorType::Rgb8).map_err(io::Error::other)
}
