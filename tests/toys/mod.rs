//! Small denoisers with known Jacobians, and random inputs, for the tests of operators and posteriors.
#![allow(dead_code)] // every test uses its part

pub mod exact;
pub mod sabotage;
pub mod textbook;

use diem::backend::host::{HostBackend, HostTensor};
use diem::backend::{Array, Backend, Keep, Real, Shape};
use diem::diffusion::Denoiser;
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Dplr, KrylovOps, MeasurementOps, Noise};
use std::sync::atomic::{AtomicUsize, Ordering};

/// The ops of operators and posteriors.
pub trait SmallOps: KrylovOps + Dplr + MeasurementOps + Noise {}
impl<B: KrylovOps + Dplr + MeasurementOps + Noise> SmallOps for B {}

/// Standard normal numbers of `shape`; row i is the same for any number of rows.
pub fn normal<B: Noise>(backend: &B, shape: Shape, seed: u64) -> B::Tensor {
    let samples: Vec<u32> = (0..shape.n as u32).collect();
    backend.noise_normal(shape, Stream::new(seed, Purpose::Test), &samples)
}

/// `len` standard normal numbers.
pub fn normals(len: usize, seed: u64) -> Vec<f64> {
    let backend = diem::backend::reference::Reference::new();
    normal(&backend, Shape::flat(len), seed).to_vec()
}

/// A mask of `shape` with about a third of ones.
pub fn mask<B: Noise>(backend: &B, shape: Shape, seed: u64) -> B::Tensor {
    let x = backend.to_vec(&normal(backend, shape, seed)).expect("host memory");
    let ones: Vec<f64> = x.iter().map(|x| if *x > 0.43 { 1.0 } else { 0.0 }).collect();
    backend.upload(shape, &ones)
}

/// ‖x - y‖ / ‖y‖; panics at values that are not finite.
pub fn distance(x: &[f64], y: &[f64]) -> f64 {
    assert_eq!(x.len(), y.len());
    assert!(x.iter().chain(y).all(|x| x.is_finite()), "non-finite values");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut x.iter().zip(y).map(|(x, y)| x - y)) / norm(&mut y.iter().copied())
}

/// d = (x + σ V tanh(W x/√(σ²+1) + b))/(σ²+1): smooth, with a Jacobian that is not symmetric and σ² J bounded, as it is
/// for the exact denoiser of any prior.
pub struct Smooth {
    /// Elements of a sample.
    d: usize,
    w: Vec<f64>, // (D, D)
    v: Vec<f64>, // (D, D)
    b: Vec<f64>, // (D)
}

impl Smooth {
    /// Random weights; a small `gain` keeps the symmetric part of J positive.
    pub fn new(d: usize, gain: f64, seed: u64) -> Self {
        let scale = (gain / d as f64).sqrt();
        let matrix = |seed| normals(d * d, seed).iter().map(|x| x * scale).collect();
        Self { d, w: matrix(seed), v: matrix(seed + 1), b: normals(d, seed + 2) }
    }
}

impl<B: HostBackend> Denoiser<B> for Smooth {
    type Condition = Vec<f64>;
    type Saved = Vec<f64>; // (N, D) the derivative of tanh

    fn condition(&self, _: &B, sigma: &[f64], _: Keep) -> Vec<f64> {
        sigma.to_vec()
    }
    fn forward(
        &self,
        backend: &B,
        x: &HostTensor<B::Elem>,
        sigma: &Vec<f64>,
        _: Keep,
    ) -> (HostTensor<B::Elem>, Option<Vec<f64>>) {
        let mut y = backend.alloc(x.shape());
        let mut slopes = Vec::new();
        for n in 0..x.shape().n {
            let var = sigma[n % sigma.len()].powi(2) + 1.0;
            let x: Vec<f64> = x.row(n).iter().map(|x| x.f64()).collect();
            let hidden: Vec<f64> = (0..self.d)
                .map(|i| (dot(&self.w[i * self.d..][..self.d], &x) / var.sqrt() + self.b[i]).tanh())
                .collect();
            for (i, y) in y.row_mut(n).iter_mut().enumerate() {
                let net = dot(&self.v[i * self.d..][..self.d], &hidden);
                *y = B::Elem::of((x[i] + (var - 1.0).sqrt() * net) / var);
            }
            slopes.extend(hidden.iter().map(|h| 1.0 - h * h));
        }
        (y, Some(slopes))
    }
    fn vjp(&self, backend: &B, sigma: &Vec<f64>, slopes: &Vec<f64>, u: &HostTensor<B::Elem>) -> HostTensor<B::Elem> {
        let mut g = backend.alloc(u.shape());
        for n in 0..u.shape().n {
            let var = sigma[n % sigma.len()].powi(2) + 1.0;
            let u: Vec<f64> = u.row(n).iter().map(|u| u.f64()).collect();
            let dh: Vec<f64> = (0..self.d)
                .map(|i| slopes[n * self.d + i] * (0..self.d).map(|j| self.v[j * self.d + i] * u[j]).sum::<f64>())
                .collect();
            for (i, g) in g.row_mut(n).iter_mut().enumerate() {
                let net: f64 = (0..self.d).map(|j| self.w[j * self.d + i] * dh[j]).sum();
                *g = B::Elem::of((u[i] + ((var - 1.0) / var).sqrt() * net) / var);
            }
        }
        g
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Counts the VJPs of a denoiser.
pub struct Counting<D> {
    denoiser: D,
    vjps: AtomicUsize,
}

impl<D> Counting<D> {
    pub fn new(denoiser: D) -> Self {
        Self { denoiser, vjps: AtomicUsize::new(0) }
    }
    pub fn vjps(&self) -> usize {
        self.vjps.load(Ordering::Relaxed)
    }
}

impl<B: Backend, D: Denoiser<B>> Denoiser<B> for Counting<D> {
    type Condition = D::Condition;
    type Saved = D::Saved;

    fn condition(&self, backend: &B, sigma: &[f64], keep: Keep) -> D::Condition {
        self.denoiser.condition(backend, sigma, keep)
    }
    fn forward(&self, backend: &B, x: &B::Tensor, c: &D::Condition, keep: Keep) -> (B::Tensor, Option<D::Saved>) {
        self.denoiser.forward(backend, x, c, keep)
    }
    fn vjp(&self, backend: &B, c: &D::Condition, saved: &D::Saved, u: &B::Tensor) -> B::Tensor {
        self.vjps.fetch_add(1, Ordering::Relaxed);
        self.denoiser.vjp(backend, c, saved, u)
    }
}
