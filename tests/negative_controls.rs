//! What must be caught: a halved σ, a wrong adjoint and a solver's scalar shared across the batch each break the promise of
//! 2% that `posterior.rs` proves for the correct estimator.

mod toys;

use diem::Result;
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Estimator, Sampler};
use diem::linalg::Matrix;
use diem::operators::{DenseMatrix, Measurement, Operator};
use diem::ops::Vector;
use diem::posterior::solvers::{Krylov, Solver};
use diem::posterior::{Covariance, Mmps};
use std::sync::Arc;
use toys::exact::{CASES, CONVERGED, Case, D, Errors, IMAGE, plan, prior, propagated_errors};

/// Errors by 2M-SDE at 64 steps, with which the correct estimator passes above.
fn spoilt_errors(case: Case, backend: &Reference, estimator: &mut dyn Estimator<Reference>) -> Errors {
    propagated_errors(case, backend, &plan(Sampler::TwoMSde, 64), estimator, prior().mean()).0
}

/// An estimator that takes σ for half of what it is.
struct HalvedSigma<E>(E);

impl<B: Backend, E: Estimator<B>> Estimator<B> for HalvedSigma<E> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let halved: Vec<f64> = sigma.iter().map(|sigma| 0.5 * sigma).collect();
        self.0.estimate(backend, x_t, &halved)
    }
}

#[test]
fn a_halved_sigma_is_caught() {
    let (backend, prior) = (Reference::new(), prior());
    for case in CASES {
        let measurement = case.measurement(&backend, case.operator(&backend), D + 2);
        let mmps = Mmps::new(&backend, &prior, &measurement, CONVERGED, Covariance::Tweedie);
        let errors = spoilt_errors(case, &backend, &mut HalvedSigma(mmps));
        println!("{case:?}: {errors:?}");
        assert!(!errors.within(0.02), "{case:?}: {errors:?}");
    }
}

/// The forward of one operator with the adjoint of another, times a factor.
struct WrongAdjoint {
    forward: Box<dyn Operator<Reference>>,
    adjoint: Box<dyn Operator<Reference>>,
    scale: f64,
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

#[test]
fn a_wrong_adjoint_is_caught() {
    let (backend, prior) = (Reference::new(), prior());
    let case = Case::FullRank;
    let basis = backend.upload(IMAGE.with_n(D), Matrix::scaled_identity(D, 1.0).as_slice());
    let columns = case.operator(&backend).forward(&backend, &basis).to_vec(); // row-major: the transpose of A
    let transpose = DenseMatrix::new(backend.upload(Shape::new(1, 1, D, D), &columns), IMAGE).unwrap();
    let scaled = WrongAdjoint { forward: case.operator(&backend), adjoint: case.operator(&backend), scale: 0.5 };
    let transposed = WrongAdjoint { forward: case.operator(&backend), adjoint: Box::new(transpose), scale: 1.0 };
    for operator in [scaled, transposed] {
        let measurement = case.measurement(&backend, Box::new(operator), D + 2);
        let mut mmps = Mmps::new(&backend, &prior, &measurement, CONVERGED, Covariance::Tweedie);
        let errors = spoilt_errors(case, &backend, &mut mmps);
        println!("{errors:?}");
        assert!(!errors.within(0.02), "{errors:?}");
    }
}

/// A batch that passes for one sample: its conjugate gradient has one α and one β for all.
struct AsOne<T>(T);

/// (N, H, W, C) as (1, N H, W, C).
fn as_one(x: &HostTensor<f64>, backend: &Reference) -> HostTensor<f64> {
    let shape = x.shape();
    backend.copy(x).reshape(Shape::new(1, shape.n * shape.h, shape.w, shape.c))
}

/// (1, N H, W, C) as (N, H, W, C) for an `h`.
fn as_batch(x: &HostTensor<f64>, h: usize, backend: &Reference) -> HostTensor<f64> {
    let shape = x.shape();
    backend.copy(x).reshape(Shape::new(shape.h / h, h, shape.w, shape.c))
}

impl Operator<Reference> for AsOne<Arc<dyn Operator<Reference>>> {
    fn forward(&self, backend: &Reference, x: &HostTensor<f64>) -> HostTensor<f64> {
        as_one(&self.0.forward(backend, &as_batch(x, IMAGE.h, backend)), backend)
    }
    fn adjoint(&self, backend: &Reference, v: &HostTensor<f64>) -> HostTensor<f64> {
        as_one(&self.0.adjoint(backend, &as_batch(v, 1, backend)), backend) // vectors
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
        self.0.condition(backend, sigma, keep)
    }
    fn forward(
        &self,
        backend: &Reference,
        x_t: &HostTensor<f64>,
        condition: &D::Condition,
        keep: Keep,
    ) -> (HostTensor<f64>, Option<D::Saved>) {
        let (x, saved) = self.0.forward(backend, &as_batch(x_t, IMAGE.h, backend), condition, keep);
        (as_one(&x, backend), saved)
    }
    fn vjp(
        &self,
        backend: &Reference,
        condition: &D::Condition,
        saved: &D::Saved,
        u: &HostTensor<f64>,
    ) -> HostTensor<f64> {
        as_one(&self.0.vjp(backend, condition, saved, &as_batch(u, IMAGE.h, backend)), backend)
    }
}

/// The observation under test next to as many others, as in a sampler's batch.
struct AmongOthers<E> {
    estimator: E,
    /// Whether the batch is handed over as one sample.
    as_one: bool,
}

impl<E: Estimator<Reference>> Estimator<Reference> for AmongOthers<E> {
    fn estimate(&mut self, backend: &Reference, x_t: &HostTensor<f64>, sigma: &[f64]) -> Result<HostTensor<f64>> {
        let rows = x_t.shape().n;
        let twice: Vec<usize> = (0..rows).chain(0..rows).collect();
        let batch = backend.gather_rows(x_t, &twice);
        let x = match self.as_one {
            true => as_batch(&self.estimator.estimate(backend, &as_one(&batch, backend), sigma)?, IMAGE.h, backend),
            false => self.estimator.estimate(backend, &batch, sigma)?,
        };
        Ok(backend.gather_rows(&x, &twice[..rows]))
    }
}

#[test]
fn a_scalar_shared_across_the_batch_is_caught() {
    let (backend, prior, case) = (Reference::new(), prior(), Case::Single);
    let rows = D + 2;
    let own = toys::normals(D, 9); // the projection of `Case::Single`
    let other: Vec<f64> = toys::normals(D, 10).iter().map(|a| 5.0 * a).collect();
    let a: Vec<f64> = [&own, &other].into_iter().flat_map(|a| a.repeat(rows)).collect();
    let a = backend.upload(Shape::new(2 * rows, 1, 1, D), &a);
    let operator = Box::new(DenseMatrix::new(a, IMAGE).unwrap());
    let measurement = case.measurement(&backend, operator, 2 * rows);
    let once = Solver { krylov: Krylov::Cg, iterations: 1, rtol: 1e-3 };

    let mmps = Mmps::new(&backend, &prior, &measurement, once, Covariance::Tweedie);
    let errors = spoilt_errors(case, &backend, &mut AmongOthers { estimator: mmps, as_one: false });
    println!("{errors:?}");
    assert!(errors.within(0.02), "a scalar for each sample: {errors:?}");

    let Measurement { y, variance, operator } = measurement;
    let measurement = Measurement { y: as_one(&y, &backend), variance, operator: Arc::new(AsOne(operator)) };
    let denoiser = AsOne(&prior);
    let mmps = Mmps::new(&backend, &denoiser, &measurement, once, Covariance::Tweedie);
    let errors = spoilt_errors(case, &backend, &mut AmongOthers { estimator: mmps, as_one: true });
    println!("{errors:?}");
    assert!(!errors.within(0.02), "one for all: {errors:?}");
}
