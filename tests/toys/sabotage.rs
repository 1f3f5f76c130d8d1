//! What a test of the posterior must catch: a halved σ, a wrong adjoint, a solver's scalar shared across the batch.

use diem::Result;
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Estimator};
use diem::operators::Operator;
use std::sync::Arc;

/// An estimator that takes σ for half of what it is.
pub struct HalvedSigma<E>(pub E);

impl<B: Backend, E: Estimator<B>> Estimator<B> for HalvedSigma<E> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let halved: Vec<f64> = sigma.iter().map(|sigma| 0.5 * sigma).collect();
        self.0.estimate(backend, x_t, &halved)
    }
}

/// The forward of one operator with the adjoint of another, times a factor.
pub struct WrongAdjoint {
    pub forward: Box<dyn Operator<Reference>>,
    pub adjoint: Box<dyn Operator<Reference>>,
    pub scale: f64,
}

impl Operator<Reference> for WrongAdjoint {
    fn forward(&self, backend: &Reference, x: &HostTensor<f64>) -> HostTensor<f64> {
        self.forward.forward(backend, x)
    }
    fn adjoint(&self, backend: &Reference, v: &HostTensor<f64>) -> HostTensor<f64> {
        let mut x = self.adjoint.adjoint(backend, v);
        x.iter_mut().for_each(|x| *x *= self.scale);
        x
    }
    fn measured(&self, n: usize) -> Result<Shape> {
        self.forward.measured(n)
    }
    fn gather(&self, backend: &Reference, index: &[usize]) -> Box<dyn Operator<Reference>> {
        let [forward, adjoint] = [&self.forward, &self.adjoint].map(|operator| operator.gather(backend, index));
        Box::new(Self { forward, adjoint, scale: self.scale })
    }
}

/// A batch that passes for one sample: its conjugate gradient has one α and one β for all.
pub struct AsOne<T> {
    of: T,
    h: usize,
}

impl<T> AsOne<T> {
    /// `h` is the height of a sample.
    pub fn new(of: T, h: usize) -> Self {
        Self { of, h }
    }
}

/// (N, H, W, C) as (1, N H, W, C).
pub fn as_one(x: &HostTensor<f64>, backend: &Reference) -> HostTensor<f64> {
    let shape = x.shape();
    backend.copy(x).reshape(Shape::new(1, shape.n * shape.h, shape.w, shape.c))
}

/// (1, N H, W, C) as (N, H, W, C) for an `h`.
pub fn as_batch(x: &HostTensor<f64>, h: usize, backend: &Reference) -> HostTensor<f64> {
    let shape = x.shape();
    backend.copy(x).reshape(Shape::new(shape.h / h, h, shape.w, shape.c))
}

impl Operator<Reference> for AsOne<Arc<dyn Operator<Reference>>> {
    fn forward(&self, backend: &Reference, x: &HostTensor<f64>) -> HostTensor<f64> {
        as_one(&self.of.forward(backend, &as_batch(x, self.h, backend)), backend)
    }
    fn adjoint(&self, backend: &Reference, v: &HostTensor<f64>) -> HostTensor<f64> {
        as_one(&self.of.adjoint(backend, &as_batch(v, 1, backend)), backend) // vectors
    }
    fn measured(&self, _: usize) -> Result<Shape> {
        unreachable!("the measurement exists")
    }
    fn gather(&self, _: &Reference, _: &[usize]) -> Box<dyn Operator<Reference>> {
        unreachable!("the batch stays whole")
    }
}

impl<D: Denoiser<Reference>> Denoiser<Reference> for AsOne<&D> {
    type Condition = D::Condition;
    type Saved = D::Saved;

    fn condition(&self, backend: &Reference, sigma: &[f64], keep: Keep) -> D::Condition {
        self.of.condition(backend, sigma, keep)
    }
    fn forward(
        &self,
        backend: &Reference,
        x_t: &HostTensor<f64>,
        condition: &D::Condition,
        keep: Keep,
    ) -> (HostTensor<f64>, Option<D::Saved>) {
        let (x, saved) = self.of.forward(backend, &as_batch(x_t, self.h, backend), condition, keep);
        (as_one(&x, backend), saved)
    }
    fn vjp(
        &self,
        backend: &Reference,
        condition: &D::Condition,
        saved: &D::Saved,
        u: &HostTensor<f64>,
    ) -> HostTensor<f64> {
        as_one(&self.of.vjp(backend, condition, saved, &as_batch(u, self.h, backend)), backend)
    }
}
