//! Corrupted observations of known images. What happens to image k depends on the seed and on k, not on how many there are.

use super::observations::Applied;
use super::{Measured, Observations, Samples};
use crate::Result;
use crate::backend::Shape;
use crate::ops::noise::{Purpose, Stream};
use rayon::prelude::*;
use std::path::Path;

/// A mask (N, H, W, 1) for images (N, H, W, C) that keeps each pixel, all its channels together, with probability `keep`.
pub fn random_mask(images: Shape, keep: f64, seed: u64) -> Samples<u8> {
    let stream = Stream::new(seed, Purpose::Operator);
    each_row(images.with_c(1), |sample, mask: &mut [u8]| {
        mask.iter_mut().zip(stream.uniforms(sample)).for_each(|(m, u)| *m = u8::from(u < keep));
    })
}

/// A mask (N, 1, W, 1) for the columns of k-space of images (N, H, W, 1): each is kept with probability `kept`, and always the
/// central one and `center` to either side of it, column ⌊W/2⌋ being the zero frequency.
pub fn random_columns(images: Shape, kept: f64, center: usize, seed: u64) -> Samples<u8> {
    let stream = Stream::new(seed, Purpose::Operator);
    each_row(Shape::new(images.n, 1, images.w, 1), |sample, mask: &mut [u8]| {
        for (column, (m, u)) in mask.iter_mut().zip(stream.uniforms(sample)).enumerate() {
            *m = u8::from(u < kept || column.abs_diff(images.w / 2) <= center);
        }
    })
}

/// Matrices (N, 1, M, D) for images (N, H, W, C), D = H W C, whose `m` rows are random directions of unit length.
pub fn random_projections(images: Shape, m: usize, seed: u64) -> Samples<f32> {
    let stream = Stream::new(seed, Purpose::Operator);
    let d = images.row();
    each_row(Shape::new(images.n, 1, m, d), |sample, a: &mut [f32]| {
        let mut normals = stream.each_normal(sample);
        for direction in a.chunks_exact_mut(d) {
            let z: Vec<f64> = normals.by_ref().take(d).collect();
            let norm = z.iter().map(|z| z * z).sum::<f64>().sqrt();
            direction.iter_mut().zip(z).for_each(|(a, z)| *a = (z / norm) as f32);
        }
    })
}

/// y = A x + noise of standard deviation `sigma_y`, as the observations that are to be in the file `path`.
///
/// # Errors
/// As [`Observations::new`].
pub fn observe(
    path: &Path,
    images: &Samples<f32>,
    measured: Measured,
    sigma_y: f64,
    seed: u64,
) -> Result<Observations> {
    let y = measure(images, &measured, &[sigma_y], Stream::new(seed, Purpose::Measurement));
    Observations::new(path, y, vec![sigma_y], measured)
}

/// What the operators and the noise levels of `observations` would have measured of other images, with noise of `stream`.
///
/// # Errors
/// As [`Observations::new`].
pub fn repeat(observations: &Observations, images: &Samples<f32>, stream: Stream) -> Result<Observations> {
    let (measured, noise) = (observations.measured().clone(), observations.noise());
    let y = measure(images, &measured, noise, stream);
    Observations::new(observations.path(), y, noise.to_vec(), measured)
}

/// A x + noise of standard deviations `noise`, one for all or one for each.
fn measure(images: &Samples<f32>, measured: &Measured, noise: &[f64], stream: Stream) -> Samples<f32> {
    let operators = Applied::new(measured, images.shape);
    each_row(measured.extents(images.shape), |sample, y: &mut [f32]| {
        let n = sample as usize;
        let (ax, sigma_y) = (operators.forward(n, images.row(n)), noise[n % noise.len()]);
        y.iter_mut().zip(ax).zip(stream.each_normal(sample)).for_each(|((y, ax), z)| *y = (ax + sigma_y * z) as f32);
    })
}

/// An array of `shape` whose rows `fill` computes from the sample's number.
fn each_row<T: Copy + Default + Send>(shape: Shape, fill: impl Fn(u32, &mut [T]) + Sync) -> Samples<T> {
    let mut data = vec![T::default(); shape.len()];
    data.par_chunks_exact_mut(shape.row()).enumerate().for_each(|(sample, row)| fill(sample as u32, row));
    Samples::new(shape, data)
}
