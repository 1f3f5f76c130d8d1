//! Points of a smooth random curve in a space of any dimension: the data of the paper's manifold experiment.

use super::Samples;
use crate::backend::Shape;
use crate::ops::noise::{Purpose, Stream};
use rayon::prelude::*;
use std::f64::consts::TAU;

/// Frequencies of a coordinate.
const FREQUENCIES: usize = 10;

/// The decay of their amplitudes: the higher, the smoother.
const ALPHA: i32 = 3;

/// Points of the curve among which its extremes are looked for. The highest frequency is 10, so that the extremes are missed by
/// less than (π 10 / 2¹⁴)² / 2 = 2e-6 of the amplitude.
const GRID: usize = 1 << 14;

/// x_j(z) = Σ_k a_jk k^-α sin(2π (k b_jk z + c_jk)), k = 1 .. 10, α = 3, for z in \[0, 1); a, b and c are uniform in \[0, 1). Every
/// coordinate is then shifted and scaled so that the curve spans \[-2, 2\] in it.
///
/// # Reference
/// Zenke and Vogels, The remarkable robustness of surrogate gradient learning for instilling complex function in spiking neural
/// networks, 2021 (randman); Rozet, Andry, Lanusse and Louppe, NeurIPS 2024, section 5.1.
#[derive(Clone, Debug)]
pub struct Manifold {
    coordinates: Vec<Coordinate>,
    stream: Stream,
}

/// One coordinate of the curve.
#[derive(Clone, Debug)]
struct Coordinate {
    waves: [Wave; FREQUENCIES],
    centre: f64,
    scale: f64,
}

/// a k^-α sin(2π (k b z + c)).
#[derive(Clone, Copy, Debug, Default)]
struct Wave {
    amplitude: f64, // a k^-α
    frequency: f64, // k b
    phase: f64,     // c
}

impl Manifold {
    /// The curve of `seed` in R^`dimension`.
    pub fn new(dimension: usize, seed: u64) -> Self {
        let stream = Stream::new(seed, Purpose::Manifold);
        let coordinates = (0..dimension as u32).map(|j| Coordinate::new(stream.at(1, 0).uniforms(j))).collect();
        Self { coordinates, stream }
    }
    /// The point at z.
    pub fn at(&self, z: f64) -> impl Iterator<Item = f64> {
        self.coordinates.iter().map(move |coordinate| coordinate.at(z))
    }
    /// z of random point number `k`.
    pub fn position(&self, k: u32) -> f64 {
        self.stream.uniforms(k).next().expect("one for every element")
    }
    /// Random points (N, D) from number `first` on: point k is the same however many there are.
    pub fn points(&self, first: u32, n: usize) -> Samples<f32> {
        let shape = Shape::rows(n, self.coordinates.len());
        let mut data = vec![0.0; shape.len()];
        data.par_chunks_exact_mut(shape.row()).enumerate().for_each(|(k, x)| {
            let z = self.position(first + k as u32);
            x.iter_mut().zip(self.at(z)).for_each(|(x, value)| *x = value as f32);
        });
        Samples::new(shape, data)
    }
}

impl Coordinate {
    fn new(mut uniforms: impl Iterator<Item = f64>) -> Self {
        let mut next = || uniforms.next().expect("one for every element");
        let waves = std::array::from_fn(|i| {
            let k = (i + 1) as f64;
            Wave { amplitude: next() / k.powi(ALPHA), frequency: k * next(), phase: next() }
        });
        let curve = Self { waves, centre: 0.0, scale: 1.0 };
        let grid = (0..=GRID).map(|i| curve.at(i as f64 / GRID as f64));
        let (low, high) = grid.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        Self { centre: 0.5 * (low + high), scale: 4.0 / (high - low), ..curve }
    }
    fn at(&self, z: f64) -> f64 {
        let wave = |w: &Wave| w.amplitude * (TAU * (w.frequency * z + w.phase)).sin();
        (self.waves.iter().map(wave).sum::<f64>() - self.centre) * self.scale
    }
}
