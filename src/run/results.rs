//! What a finished run shows: per-pixel moments, and pictures.

use super::folder::Folder;
use super::moments::Moments;
use crate::Result;
use crate::backend::Shape;
use crate::data::picture::{self, Tile};
use crate::data::{NpyReader, NpyWriter, Observations};
use image::RgbImage;

/// Rows and columns of a picture at most.
const SIDE: usize = 8;

/// Writes `mean.npy` and `std.npy`, (M / draws, H, W, C), over the `draws` samples of each observation, in the memory of one
/// sample. A sample that is not finite does not count.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_moments(folder: &Folder, shape: Shape, draws: usize) -> Result<()> {
    let count = shape.n / draws;
    let dims = super::folder::row_dims(shape);
    let mut samples = folder.samples()?;
    let mut mean = NpyWriter::create(&folder.path().join("mean.npy"), count, dims.as_slice())?;
    let mut std = NpyWriter::create(&folder.path().join("std.npy"), count, dims.as_slice())?;
    let mut x = vec![0.0; shape.row()];
    for observation in 0..count {
        let mut moments = Moments::new(shape.row());
        for draw in 0..draws {
            samples.read(observation * draws + draw, &mut x)?;
            if x.iter().all(|x| x.is_finite()) {
                moments.add(&x);
            }
        }
        mean.append(&moments.mean().map(|m| m as f32).collect::<Vec<_>>())?;
        std.append(&moments.std().map(|s| s as f32).collect::<Vec<_>>())?;
    }
    mean.finish()?;
    std.finish()
}

/// Writes the pictures: `grid.png`, and with several draws `mean.png` and `std.png`. Vectors have none.
///
/// # Errors
/// When a file cannot be read or written.
pub fn write_pictures(folder: &Folder, shape: Shape, observations: Option<&Observations>, draws: usize) -> Result<()> {
    if shape.pixels() == 1 {
        return Ok(());
    }
    let path = |name: &str| folder.path().join(name);
    let grid = match observations {
        Some(observations) => posterior_grid(&mut folder.samples()?, shape, observations, draws)?,
        None => sample_grid(&mut folder.samples()?, shape)?,
    };
    picture::write(&path("grid.png"), &grid)?;
    if draws > 1 {
        let shown = 0..(shape.n / draws).min(SIDE * SIDE);
        let mean = Rows::read(&mut NpyReader::open(&path("mean.npy"))?, shown.clone())?;
        picture::write(&path("mean.png"), &plain_grid(shape, &mean.tiles(Tile::Image)))?;
        let std = Rows::read(&mut NpyReader::open(&path("std.npy"))?, shown)?;
        let scale = std.largest();
        picture::write(&path("std.png"), &plain_grid(shape, &std.tiles(|x| Tile::Magnitude(x, scale))))?;
    }
    Ok(())
}

/// A row for each observation: what was observed, then its samples. With one draw each, pairs fill the rows.
///
/// # Errors
/// When the file cannot be read.
pub fn posterior_grid(
    samples: &mut NpyReader,
    shape: Shape,
    observations: &Observations,
    draws: usize,
) -> Result<RgbImage> {
    let shown = draws.min(SIDE);
    let per_row = (SIDE / (shown + 1)).max(1);
    let count = observations.len().min(SIDE * per_row);
    let draws: Vec<Rows> =
        (0..count).map(|i| Rows::read(samples, i * draws..i * draws + shown)).collect::<Result<_>>()?;
    let observed: Vec<Vec<f32>> = (0..count).map(|i| observations.back_projection(i)).collect();
    let groups: Vec<Vec<Tile<'_>>> = (0..count)
        .map(|i| {
            let first = observations.tile(i, &observed[i]);
            std::iter::once(first).chain(draws[i].tiles(Tile::Image)).collect()
        })
        .collect();
    let rows: Vec<_> = groups.chunks(per_row).map(|groups| groups.concat()).collect();
    Ok(picture::grid(shape, &rows))
}

/// The first samples, in a square.
///
/// # Errors
/// When the file cannot be read.
pub fn sample_grid(samples: &mut NpyReader, shape: Shape) -> Result<RgbImage> {
    let count = samples.rows().min(SIDE * SIDE);
    let x = Rows::read(samples, 0..count)?;
    Ok(plain_grid(shape, &x.tiles(Tile::Image)))
}

fn plain_grid(shape: Shape, tiles: &[Tile<'_>]) -> RgbImage {
    let columns = (tiles.len() as f64).sqrt().ceil() as usize;
    let rows: Vec<_> = tiles.chunks(columns.max(1)).map(<[_]>::to_vec).collect();
    picture::grid(shape, &rows)
}

/// Some rows of a file.
struct Rows {
    x: Vec<f32>,
    row: usize,
}

impl Rows {
    fn read(file: &mut NpyReader, range: std::ops::Range<usize>) -> Result<Self> {
        let row = file.row();
        let mut x = vec![0.0; range.len() * row];
        file.read(range.start, &mut x)?;
        Ok(Self { x, row })
    }
    fn tiles<'a>(&'a self, tile: impl Fn(&'a [f32]) -> Tile<'a>) -> Vec<Tile<'a>> {
        self.x.chunks_exact(self.row).map(tile).collect()
    }
    fn largest(&self) -> f32 {
        self.x.iter().copied().filter(|x| x.is_finite()).fold(f32::MIN_POSITIVE, f32::max)
    }
}
