//! What must be caught: a halved σ, a wrong adjoint and a solver's scalar shared across the batch each break the promise of
//! 2% that `posterior.rs` proves for the correct estimator.

mod toys;

use diem::Result;
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::diffusion::{Estimator, Sampler};
use diem::linalg::Matrix;
use diem::operators::{DenseMatrix, Measurement};
use diem::ops::Vector;
use diem::posterior::solvers::{Krylov, Solver};
use diem::posterior::{Covariance, Mmps};
use std::sync::Arc;
use toys::exact::{CASES, CONVERGED, Case, D, Errors, IMAGE, plan, prior, propagated_errors};
use toys::sabotage::{AsOne, HalvedSigma, WrongAdjoint, as_batch, as_one};

/// Errors by 2M-SDE at 64 steps, with which the correct estimator passes above.
fn spoilt_errors(case: Case, backend: &Reference, estimator: &mut dyn Estimator<Reference>) -> Errors {
    propagated_errors(case, backend, &plan(Sampler::TwoMSde, 64), estimator, prior().mean()).0
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
    let measurement =
        Measurement { y: as_one(&y, &backend), variance, operator: Arc::new(AsOne::new(operator, IMAGE.h)) };
    let denoiser = AsOne::new(&prior, IMAGE.h);
    let mmps = Mmps::new(&backend, &denoiser, &measurement, once, Covariance::Tweedie);
    let errors = spoilt_errors(case, &backend, &mut AmongOthers { estimator: mmps, as_one: true });
    println!("{errors:?}");
    assert!(!errors.within(0.02), "one for all: {errors:?}");
}
