//! MMPS as the paper states it: dense matrices, textbook solvers for v, then Jᵀ Aᵀ v.

use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::diffusion::Denoiser;
use diem::linalg::Matrix;
use diem::operators::Measurement;
use diem::posterior::Covariance;
use diem::posterior::solvers::{Krylov, Solver};

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
fn axpy(y: &mut [f64], a: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// CG (Hestenes and Stiefel, 1952): v after k iterations.
fn cg(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let (mut v, mut r, mut p) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    for _ in 0..k {
        let q = a.apply(&p);
        let rr = dot(&r, &r);
        let alpha = rr / dot(&p, &q);
        axpy(&mut v, alpha, &p);
        axpy(&mut r, -alpha, &q);
        let beta = dot(&r, &r) / rr;
        p = r.iter().zip(&p).map(|(r, p)| r + beta * p).collect();
    }
    v
}

/// GMRES as its definition: the least residual over span {b, A b, .., A^(k-1) b}, by projection on the images of a basis.
fn gmres(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let mut basis: Vec<(Vec<f64>, Vec<f64>)> = Vec::new(); // (d, A d), the images orthogonal
    let (mut v, mut r, mut power) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    for _ in 0..k {
        let mut d = power.clone();
        let mut image = a.apply(&d);
        for (e, image_e) in &basis {
            let h = dot(&image, image_e) / dot(image_e, image_e);
            axpy(&mut d, -h, e);
            axpy(&mut image, -h, image_e);
        }
        let alpha = dot(&r, &image) / dot(&image, &image);
        axpy(&mut v, alpha, &d);
        axpy(&mut r, -alpha, &image);
        power = image.clone(); // A d spans the next power with the others
        basis.push((d, image));
    }
    v
}

/// BiCGSTAB (van der Vorst, 1992).
fn bicgstab(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let (mut x, mut r, mut p) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    for _ in 0..k {
        let rho = dot(b, &r);
        let v = a.apply(&p);
        let alpha = rho / dot(b, &v);
        let mut s = r;
        axpy(&mut s, -alpha, &v);
        let t = a.apply(&s);
        let omega = dot(&t, &s) / dot(&t, &t);
        axpy(&mut x, alpha, &p);
        axpy(&mut x, omega, &s);
        axpy(&mut s, -omega, &t);
        r = s;
        let beta = dot(b, &r) / rho * alpha / omega;
        axpy(&mut p, -omega, &v);
        p = r.iter().zip(&p).map(|(r, p)| r + beta * p).collect();
    }
    x
}

/// The matrix of a linear map of sample `n`, by its action on the basis of its domain.
fn probe(backend: &Reference, domain: Shape, n: usize, f: impl Fn(&HostTensor<f64>) -> HostTensor<f64>) -> Matrix {
    let columns: Vec<Vec<f64>> = (0..domain.row())
        .map(|i| {
            let mut e = backend.zeros(domain);
            e.row_mut(n)[i] = 1.0;
            f(&e).row(n).to_vec()
        })
        .collect();
    Matrix::from_fn(columns[0].len(), columns.len(), |i, j| columns[j][i])
}

/// x̂ + σ² Jᵀ Aᵀ v, (Σ_y + A V Aᵀ) v = y - A x̂.
pub fn mmps<D: Denoiser<Reference>>(
    backend: &Reference,
    denoiser: &D,
    measurement: &Measurement<Reference>,
    solver: Solver,
    covariance: Covariance,
    (x_t, sigma): (&HostTensor<f64>, &[f64]),
) -> Vec<f64> {
    let solve = match solver.krylov {
        Krylov::Cg => cg,
        Krylov::Gmres => gmres,
        Krylov::Bicgstab => bicgstab,
    };
    let condition = denoiser.condition(backend, sigma, Keep::Input);
    let (mut x_hat, saved) = denoiser.forward(backend, x_t, &condition, Keep::Input);
    let saved = saved.unwrap();
    let residual = measurement.residual(backend, &x_hat);
    for n in 0..x_t.shape().n {
        let variance = sigma[n % sigma.len()].powi(2);
        let d = x_t.shape().row();
        let a = probe(backend, x_t.shape(), n, |x| measurement.operator.forward(backend, x));
        let a_t = probe(backend, residual.shape(), n, |v| measurement.operator.adjoint(backend, v));
        let j_t = probe(backend, x_t.shape(), n, |u| denoiser.vjp(backend, &condition, &saved, u));
        let v = match covariance {
            Covariance::Tweedie => j_t.times(&Matrix::scaled_identity(d, variance)),
            Covariance::Sigma => Matrix::scaled_identity(d, variance),
            Covariance::Unit => Matrix::scaled_identity(d, 1.0 / (1.0 + 1.0 / variance)),
            Covariance::Zero => Matrix::zeros(d, d),
            Covariance::Prior(gaussian) => {
                // Σ (Σ + Σ_t)⁻¹ Σ_t, row by row
                let cov = gaussian.covariance();
                let sum = diem::linalg::Cholesky::new(cov.clone().plus(&Matrix::scaled_identity(d, variance))).unwrap();
                let mut v = cov.times(&Matrix::scaled_identity(d, variance));
                (0..d).for_each(|i| sum.solve(v.row_mut(i)));
                v
            }
            Covariance::TweedieBelow { .. } => unreachable!("at every noise level it is one of the others"),
        };
        let noise = Matrix::scaled_identity(a.rows(), measurement.variance[0]);
        let v = solve(&a.times(&v).times(&a_t).plus(&noise), residual.row(n), solver.iterations);
        axpy(x_hat.row_mut(n), variance, &j_t.apply(&a_t.apply(&v)));
    }
    x_hat.to_vec()
}
