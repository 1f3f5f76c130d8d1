//! Corrupted observations of known images. What happens to image k depends on the seed and on k, not on how many there are.

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
    let shape = match measured {
        Measured::Mask(_) => images.shape,
        Measured::Dense(a) => Shape::rows(images.shape.n, a.shape.w),
    };
    each_row(shape, |sample, y: &mut [f32]| {
        let (x, sigma_y) = (images.row(sample as usize), noise[sample as usize % noise.len()]);
        let with_noise = |ax: f64, z: f64| (ax + sigma_y * z) as f32;
        match measured {
            Measured::Mask(_) => {
                let x = x.iter().map(|x| f64::from(*x));
                y.iter_mut().zip(x).zip(stream.each_normal(sample)).for_each(|((y, x), z)| *y = with_noise(x, z));
            }
            Measured::Dense(a) => {
                let ax = a.row(sample as usize).chunks_exact(x.len()).map(|a| dot(a, x));
                y.iter_mut().zip(ax).zip(stream.each_normal(sample)).for_each(|((y, ax), z)| *y = with_noise(ax, z));
            }
        }
    })
}

/// An array of `shape` whose rows `fill` computes from the sample's number.
fn each_row<T: Copy + Default + Send>(shape: Shape, fill: impl Fn(u32, &mut [T]) + Sync) -> Samples<T> {
    let mut data = vec![T::default(); shape.len()];
    data.par_chunks_exact_mut(shape.row()).enumerate().for_each(|(sample, row)| fill(sample as u32, row));
    Samples::new(shape, data)
}

fn dot(a: &[f32], x: &[f32]) -> f64 {
    a.iter().zip(x).map(|(a, x)| f64::from(*a) * f64::from(*x)).sum()
}
