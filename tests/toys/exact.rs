//! Gaussian posteriors in closed form, and what a sampler makes of them: its mean and covariance, carried exactly through its
//! own steps.

use super::{SmallOps, mask, normal, normals};
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::diffusion::propagate::propagate;
use diem::diffusion::{Estimator, Gaussian, Plan, Sampler, Schedule};
use diem::linalg::{Cholesky, Matrix};
use diem::operators::{DenseMatrix, Measurement, Operator, PixelMask};
use diem::posterior::solvers::{Krylov, Solver};

pub const IMAGE: Shape = Shape::new(1, 2, 4, 2);
pub const D: usize = IMAGE.row();
const SIGMA_MIN: f64 = 1e-3;

/// Standard deviations from 0.3 to about 1.5, strongly correlated, around a mean that is not zero.
pub fn prior() -> Gaussian {
    Gaussian::new(normals(D, 1), vec![0.09; D], normals(D * 3, 2).iter().map(|u| 0.7 * u).collect()).unwrap()
}

/// What is measured, as a tensor for any backend.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Case {
    /// A third of the pixels, precisely.
    Mask,
    /// As many independent projections as there are elements.
    FullRank,
    /// Six projections, of which two are sums of others.
    RankDeficient,
    /// One projection: a system of one equation, which one iteration solves.
    Single,
}

/// Those that the sampler must get right.
pub const CASES: [Case; 3] = [Case::Mask, Case::FullRank, Case::RankDeficient];

impl Case {
    pub fn sigma_y(self) -> f64 {
        match self {
            Self::Mask => 1e-3,
            Self::FullRank => 0.5,
            Self::RankDeficient | Self::Single => 0.05,
        }
    }
    pub fn operator<B: SmallOps>(self, backend: &B) -> Box<dyn Operator<B>> {
        let dense = |a: Vec<f64>| -> Box<dyn Operator<B>> {
            let a = backend.upload(Shape::new(1, 1, a.len() / D, D), &a);
            Box::new(DenseMatrix::new(a, IMAGE).unwrap())
        };
        match self {
            Self::Mask => Box::new(PixelMask::new(mask(backend, IMAGE.with_c(1), 3), IMAGE).unwrap()),
            Self::FullRank => dense(normals(D * D, 4).iter().map(|a| a / (D as f64).sqrt()).collect()),
            Self::Single => dense(normals(D, 9)),
            Self::RankDeficient => {
                let mut a = normals(4 * D, 5);
                let sum = |i: usize, j: usize| (0..D).map(|k| a[i * D + k] + a[j * D + k]).collect::<Vec<_>>();
                let (first, second) = (sum(0, 1), sum(1, 2));
                a.extend(first.into_iter().chain(second));
                dense(a)
            }
        }
    }
    /// y = A x + noise for one x of the prior, in `rows` rows.
    pub fn measurement<B: SmallOps>(self, backend: &B, operator: Box<dyn Operator<B>>, rows: usize) -> Measurement<B> {
        let truth = self.operator(backend);
        let prior = prior();
        let w = normals(3, 6);
        let x: Vec<f64> = (normals(D, 7).iter().enumerate())
            .map(|(i, z)| prior.mean()[i] + 0.3 * z + (0..3).map(|r| prior.factor()[(i, r)] * w[r]).sum::<f64>())
            .collect();
        let mut y = truth.forward(backend, &backend.upload(IMAGE, &x));
        let noise = normal(backend, y.shape(), 8);
        y = backend.linear_combination(&[(1.0, &y), (self.sigma_y(), &noise)]);
        let y = backend.gather_rows(&y, &vec![0; rows]);
        Measurement::new(backend, &y, &[self.sigma_y()], operator).unwrap()
    }
    /// Mean and covariance of x given y, in closed form.
    pub fn closed_form(self) -> (Vec<f64>, Matrix) {
        let backend = Reference::new();
        let prior = prior();
        let operator = self.operator(&backend);
        let y = self.measurement(&backend, self.operator(&backend), 1).y.to_vec();
        let basis = backend.upload(IMAGE.with_n(D), Matrix::scaled_identity(D, 1.0).as_slice());
        let columns = operator.forward(&backend, &basis);
        let a = Matrix::from_fn(y.len(), D, |i, j| columns.row(j)[i]);
        let cov_x = prior.covariance();
        let cov_y = a.congruence(&cov_x).plus(&Matrix::scaled_identity(y.len(), self.sigma_y().powi(2)));
        let cholesky = Cholesky::new(cov_y).unwrap();
        // gain K = Σ_x Aᵀ (A Σ_x Aᵀ + Σ_y)⁻¹, row by row; cov = (I - K A) Σ_x
        let cross = cov_x.times(&a.transpose());
        let mut gain = cross.clone();
        (0..D).for_each(|i| cholesky.solve(gain.row_mut(i)));
        let residual: Vec<f64> = y.iter().zip(a.apply(prior.mean())).map(|(y, ax)| y - ax).collect();
        let mean = prior.mean().iter().zip(gain.apply(&residual)).map(|(m, k)| m + k).collect();
        let explained = gain.times(&cross.transpose());
        (mean, Matrix::from_fn(D, D, |i, j| cov_x[(i, j)] - explained[(i, j)]))
    }
}

/// How far samples are from the closed form, at worst over the coordinates whose posterior std is at least 10 σ_min.
#[derive(Debug)]
pub struct Errors {
    /// In units of the posterior std.
    pub mean: f64,
    /// |std / exact - 1|.
    pub std: f64,
    pub coordinates: usize,
}

impl Errors {
    pub fn of(mean: &[f64], variance: &[f64], (exact_mean, exact_cov): &(Vec<f64>, Matrix)) -> Self {
        let finite = mean.iter().chain(variance).all(|x| x.is_finite());
        let none = if finite { 0.0 } else { f64::INFINITY };
        let mut errors = Self { mean: none, std: none, coordinates: 0 };
        for i in 0..D {
            let std = exact_cov[(i, i)].sqrt();
            if std >= 10.0 * SIGMA_MIN {
                errors.mean = errors.mean.max((mean[i] - exact_mean[i]).abs() / std);
                errors.std = errors.std.max((variance[i].sqrt() / std - 1.0).abs());
                errors.coordinates += 1;
            }
        }
        errors
    }
    /// The project's promise: 2%. DDPM's own discretisation costs 0.6% of the std at 1,024 steps, 2M 0.2% at 64.
    pub fn within(&self, bound: f64) -> bool {
        self.mean < bound && self.std < bound && self.coordinates > 0
    }
}

pub fn plan(sampler: Sampler, steps: usize) -> Plan {
    sampler.plan(Schedule::default(), steps).unwrap()
}

/// As many iterations as resolve every eigenvalue of the largest system, twice; to far below the promise.
pub const CONVERGED: Solver = Solver { krylov: Krylov::Cg, iterations: 2 * D, rtol: 1e-9 };

/// Errors of the samples that `estimator` leads to, from the start around `mean`.
pub fn propagated_errors(
    case: Case,
    backend: &Reference,
    plan: &Plan,
    estimator: &mut dyn Estimator<Reference>,
    mean: &[f64],
) -> (Errors, f64) {
    let x_0 = propagate(backend, estimator, plan, IMAGE, Some(mean)).unwrap();
    let variance: Vec<f64> = (0..D).map(|i| x_0.cov[(i, i)]).collect();
    (Errors::of(&x_0.mean, &variance, &case.closed_form()), x_0.nonlinearity)
}
