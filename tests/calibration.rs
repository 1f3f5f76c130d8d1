//! Calibration tests pass for the exact posterior and for a right sampler, and catch each of the sabotages of
//! `negative_controls.rs`, on a Gaussian prior.

mod toys;

use diem::Result;
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::{Measured, Observations, Samples, corruption};
use diem::diffusion::samplers::{sample, start};
use diem::diffusion::{Estimator, Gaussian, Sampler, Schedule};
use diem::linalg::{Cholesky, Matrix};
use diem::metrics::Calibration;
use diem::operators::{DenseMatrix, Measurement, Operator};
use diem::ops::noise::{Purpose, Stream};
use diem::posterior::solvers::{Krylov, Solver};
use diem::posterior::{Covariance, Mmps};
use std::path::Path;
use std::sync::Arc;
use toys::normals;
use toys::sabotage::{AsOne, HalvedSigma, WrongAdjoint, as_batch, as_one};

const IMAGE: Shape = Shape::new(1, 1, 1, D);
const D: usize = 5;
const M: usize = 2;
const N: usize = 400; // observations
const K: usize = 19; // draws of each
const SIGMA_Y: f64 = 0.1;
const SOLVER: Solver = Solver { krylov: Krylov::Cg, iterations: M, rtol: 1e-9 };

/// What a calibrated posterior fails once in a hundred seeds; those here are fixed.
const SIGNIFICANCE: f64 = 0.01;

fn prior() -> Gaussian {
    Gaussian::new(normals(D, 1), vec![0.09; D], normals(D * 3, 2)).unwrap()
}

/// Truths of the prior and what was observed of them, with projections of their own: of every other one five times as long.
fn scene() -> (Samples<f32>, Observations) {
    let (prior, z, w) = (prior(), normals(N * D, 3), normals(N * 3, 4));
    let element = |n: usize, i: usize| {
        let low_rank: f64 = (0..3).map(|r| prior.factor()[(i, r)] * w[n * 3 + r]).sum();
        (prior.mean()[i] + 0.3 * z[n * D + i] + low_rank) as f32
    };
    let truth = Samples::new(Shape::rows(N, D), (0..N * D).map(|e| element(e / D, e % D)).collect());
    let mut a = corruption::random_projections(truth.shape, M, 5);
    a.data.iter_mut().enumerate().filter(|(e, _)| e / (M * D) % 2 == 1).for_each(|(_, a)| *a *= 5.0);
    let observations = corruption::observe(Path::new("y.npz"), &truth, Measured::Dense(a), SIGMA_Y, 6).unwrap();
    (truth, observations)
}

/// Every observation, K times.
fn index() -> Vec<usize> {
    (0..N * K).map(|k| k / K).collect()
}

fn measurement(backend: &Reference, observations: &Observations) -> Measurement<Reference> {
    observations.bind(backend, &index(), IMAGE, None).unwrap()
}

fn draw(backend: &Reference, estimator: &mut dyn Estimator<Reference>) -> Samples<f32> {
    let plan = Sampler::TwoMSde.plan(Schedule::new(1e-3, 1e2).unwrap(), 48).unwrap();
    let run = Stream::new(7, Purpose::Step);
    let samples: Vec<u32> = (0..(N * K) as u32).collect();
    let mean = backend.upload(IMAGE, prior().mean());
    let x_1 = start(backend, &plan, Some(&mean), IMAGE.with_n(N * K), run, &samples);
    let x_0 = sample(backend, estimator, &plan, x_1, run, &samples, &mut |_| ()).unwrap().x_0;
    Samples::new(IMAGE.with_n(N * K), backend.to_vec(&x_0).unwrap().into_iter().map(|x| x as f32).collect())
}

fn p_value(truth: &Samples<f32>, observations: &Observations, draws: &Samples<f32>) -> f64 {
    let calibration = Calibration::new(truth, draws, Some(observations), Stream::new(8, Purpose::Test)).unwrap();
    let coverage: Vec<_> = calibration.coverage.iter().map(|c| (c.nominal, c.found, c.error)).collect();
    println!("p {:.2e}, TARP {:?}, coverage {coverage:.3?}", calibration.p_value(), calibration.tarp.test);
    calibration.p_value()
}

/// Mean and a root of the covariance of x given observation `n`, in closed form.
fn closed_form(observations: &Observations, n: usize) -> (Vec<f64>, Matrix) {
    let (prior, Measured::Dense(a)) = (prior(), observations.measured()) else { unreachable!() };
    let a = Matrix::from_fn(M, D, |i, j| f64::from(a.row(n)[i * D + j]));
    let cov = prior.covariance();
    let cholesky = Cholesky::new(a.congruence(&cov).plus(&Matrix::scaled_identity(M, SIGMA_Y * SIGMA_Y))).unwrap();
    let cross = cov.times(&a.transpose());
    let mut gain = cross.clone();
    (0..D).for_each(|i| cholesky.solve(gain.row_mut(i)));
    let ax = a.apply(prior.mean());
    let residual: Vec<f64> = observations.y().row(n).iter().zip(ax).map(|(y, ax)| f64::from(*y) - ax).collect();
    let mean = prior.mean().iter().zip(gain.apply(&residual)).map(|(m, k)| m + k).collect();
    let explained = gain.times(&cross.transpose());
    (mean, Matrix::from_fn(D, D, |i, j| cov[(i, j)] - explained[(i, j)]))
}

/// Lower triangular L with L Lᵀ = `a`.
fn root(a: &Matrix) -> Matrix {
    let mut l = Matrix::zeros(D, D);
    for i in 0..D {
        for j in 0..=i {
            let rest = a[(i, j)] - (0..j).map(|k| l[(i, k)] * l[(j, k)]).sum::<f64>();
            l[(i, j)] = if i == j { rest.sqrt() } else { rest / l[(j, j)] };
        }
    }
    l
}

/// Exact draws, with the standard deviation times `scale`.
fn exact_draws(observations: &Observations, scale: f64) -> Samples<f32> {
    let z = normals(N * K * D, 9);
    let mut x = Vec::new();
    for n in 0..N {
        let (mean, cov) = closed_form(observations, n);
        let l = root(&cov);
        for k in 0..K {
            let z = &z[(n * K + k) * D..][..D];
            x.extend(mean.iter().zip(l.apply(z)).map(|(m, z)| (m + scale * z) as f32));
        }
    }
    Samples::new(IMAGE.with_n(N * K), x)
}

#[test]
fn exact_posteriors_pass_and_narrow_ones_fail() {
    let (truth, observations) = scene();
    assert!(p_value(&truth, &observations, &exact_draws(&observations, 1.0)) > SIGNIFICANCE);
    assert!(p_value(&truth, &observations, &exact_draws(&observations, 0.7)) < SIGNIFICANCE);
    assert!(p_value(&truth, &observations, &exact_draws(&observations, 1.4)) < SIGNIFICANCE);
}

#[test]
fn posteriors_that_ignore_the_observation_fail() {
    let (truth, observations) = scene();
    // draws of the prior: their ranks are uniform in every coordinate, the likelihood tells
    let (prior, z, w) = (prior(), normals(N * K * D, 10), normals(N * K * 3, 11));
    let element = |k: usize, i: usize| {
        let low_rank: f64 = (0..3).map(|r| prior.factor()[(i, r)] * w[k * 3 + r]).sum();
        (prior.mean()[i] + 0.3 * z[k * D + i] + low_rank) as f32
    };
    let draws = Samples::new(IMAGE.with_n(N * K), (0..N * K * D).map(|e| element(e / D, e % D)).collect());
    assert!(p_value(&truth, &observations, &draws) < SIGNIFICANCE);
    let blind = Calibration::new(&truth, &draws, None, Stream::new(8, Purpose::Test)).unwrap();
    assert!(blind.p_value() > SIGNIFICANCE, "{}", blind.p_value());
}

#[test]
fn the_sampler_passes_and_a_halved_sigma_fails() {
    let ((truth, observations), backend, prior) = (scene(), Reference::new(), prior());
    let measurement = measurement(&backend, &observations);
    let mmps = || Mmps::new(&backend, &prior, &measurement, SOLVER, Covariance::Tweedie);
    assert!(p_value(&truth, &observations, &draw(&backend, &mut mmps())) > SIGNIFICANCE);
    assert!(p_value(&truth, &observations, &draw(&backend, &mut HalvedSigma(mmps()))) < SIGNIFICANCE);
}

#[test]
fn a_wrong_adjoint_fails() {
    let ((truth, observations), backend, prior) = (scene(), Reference::new(), prior());
    let Measured::Dense(a) = observations.measured() else { unreachable!() };
    let operator = || -> Box<dyn Operator<Reference>> {
        let a = a.gather(&index());
        Box::new(DenseMatrix::new(backend.upload(a.shape, &a.data), IMAGE).unwrap())
    };
    let wrong = WrongAdjoint { forward: operator(), adjoint: operator(), scale: 0.5 };
    let y = backend.upload(Shape::rows(N * K, M), &observations.y().gather(&index()).data);
    let measurement = Measurement::new(&backend, &y, &[SIGMA_Y], Box::new(wrong)).unwrap();
    let mut mmps = Mmps::new(&backend, &prior, &measurement, SOLVER, Covariance::Tweedie);
    assert!(p_value(&truth, &observations, &draw(&backend, &mut mmps)) < SIGNIFICANCE);
}

/// Hands the batch over as one sample.
struct Together<E>(E);

impl<E: Estimator<Reference>> Estimator<Reference> for Together<E> {
    fn estimate(&mut self, backend: &Reference, x_t: &HostTensor<f64>, sigma: &[f64]) -> Result<HostTensor<f64>> {
        Ok(as_batch(&self.0.estimate(backend, &as_one(x_t, backend), sigma)?, IMAGE.h, backend))
    }
}

#[test]
fn a_scalar_shared_across_the_batch_fails() {
    let ((truth, observations), backend, prior) = (scene(), Reference::new(), prior());
    let Measurement { y, variance, operator } = measurement(&backend, &observations);
    let measurement =
        Measurement { y: as_one(&y, &backend), variance, operator: Arc::new(AsOne::new(operator, IMAGE.h)) };
    let denoiser = AsOne::new(&prior, IMAGE.h);
    let mut mmps = Together(Mmps::new(&backend, &denoiser, &measurement, SOLVER, Covariance::Tweedie));
    assert!(p_value(&truth, &observations, &draw(&backend, &mut mmps)) < SIGNIFICANCE);
}
