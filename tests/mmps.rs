//! MMPS: the folded solve against the textbook one, what it costs, and that every sample is on its own.

mod toys;

use diem::backend::cpu::Cpu;
use diem::backend::host::{HostBackend, HostTensor};
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Estimator, Gaussian};
use diem::operators::{DenseMatrix, Measurement, Operator, PixelMask};
use diem::posterior::solvers::{Krylov, Solver};
use diem::posterior::{Counts, Covariance, Mmps, Posterior};
use toys::{Counting, SmallOps, Smooth, distance, mask, normal, normals};

const IMAGE: Shape = Shape::new(3, 4, 5, 2);
const METHODS: [Krylov; 3] = [Krylov::Cg, Krylov::Gmres, Krylov::Bicgstab];

fn solver(krylov: Krylov, iterations: usize, rtol: f64) -> Solver {
    Solver { krylov, iterations, rtol }
}

/// Measurements of random images by a matrix for each sample, or by a mask.
fn measurement<B: SmallOps>(backend: &B, sigma_y: f64, dense: bool) -> Measurement<B> {
    let operator: Box<dyn Operator<B>> = if dense {
        Box::new(DenseMatrix::new(normal(backend, Shape::new(IMAGE.n, 1, 7, IMAGE.row()), 1), IMAGE).unwrap())
    } else {
        Box::new(PixelMask::new(mask(backend, IMAGE.with_c(1), 2), IMAGE).unwrap())
    };
    let y = operator.forward(backend, &normal(backend, IMAGE, 3));
    Measurement::new(backend, &y, &[sigma_y], operator).unwrap()
}

/// x_t = x + σ z for each sample.
fn noisy<B: SmallOps>(backend: &B, sigma: &[f64]) -> B::Tensor {
    let mut x_t = normal(backend, IMAGE, 4);
    let sigma = backend.upload(Shape::rows(sigma.len(), 1), sigma);
    backend.row_axpy(&mut x_t, 1.0, &sigma, &normal(backend, IMAGE, 5));
    x_t
}

/// x̂_post by MMPS, and its counts.
fn mmps<B: SmallOps, D: Denoiser<B>>(
    backend: &B,
    denoiser: &D,
    measurement: &Measurement<B>,
    solver: Solver,
    (x_t, sigma): (&B::Tensor, &[f64]),
) -> (Vec<f64>, Counts) {
    let mut mmps = Mmps::new(backend, denoiser, measurement, solver, Covariance::Tweedie);
    let x_hat = mmps.estimate(backend, x_t, sigma).unwrap();
    (backend.to_vec(&x_hat).unwrap(), mmps.counts(backend).unwrap())
}

type Matrix = Vec<Vec<f64>>; // rows

/// The matrix of a linear map of sample `n`, by its action on the basis of its domain.
fn probe(backend: &Reference, domain: Shape, n: usize, f: impl Fn(&HostTensor<f64>) -> HostTensor<f64>) -> Matrix {
    let columns: Matrix = (0..domain.row())
        .map(|i| {
            let mut e = backend.zeros(domain);
            e.row_mut(n)[i] = 1.0;
            f(&e).row(n).to_vec()
        })
        .collect();
    (0..columns[0].len()).map(|i| columns.iter().map(|column| column[i]).collect()).collect()
}

fn apply(a: &Matrix, x: &[f64]) -> Vec<f64> {
    a.iter().map(|row| dot(row, x)).collect()
}
fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}
fn axpy(y: &mut [f64], a: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
}

/// Textbook CG (Hestenes and Stiefel, 1952): v after k iterations.
fn textbook_cg(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let (mut v, mut r, mut p) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    for _ in 0..k {
        let q = apply(a, &p);
        let rr = dot(&r, &r);
        let alpha = rr / dot(&p, &q);
        axpy(&mut v, alpha, &p);
        axpy(&mut r, -alpha, &q);
        let beta = dot(&r, &r) / rr;
        p = r.iter().zip(&p).map(|(r, p)| r + beta * p).collect();
    }
    v
}

/// Textbook GMRES: the least residual over span {b, A b, .., A^(k-1) b}, by two Gram-Schmidt processes.
fn textbook_gmres(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let (mut basis, mut images): (Matrix, Matrix) = (Vec::new(), Vec::new());
    let (mut v, mut r) = (vec![0.0; b.len()], b.to_vec());
    for _ in 0..k {
        let mut d = basis.last().map_or(b.to_vec(), |last| apply(a, last));
        for e in &basis {
            let h = dot(&d, e) / dot(e, e);
            axpy(&mut d, -h, e);
        }
        basis.push(d.clone());
        let mut ad = apply(a, &d); // made orthogonal to the others, so that r is projected term by term
        for (e, ae) in images.chunks(2).map(|pair| (&pair[0], &pair[1])) {
            let h = dot(&ad, ae) / dot(ae, ae);
            axpy(&mut ad, -h, ae);
            axpy(&mut d, -h, e);
        }
        let alpha = dot(&r, &ad) / dot(&ad, &ad);
        axpy(&mut v, alpha, &d);
        axpy(&mut r, -alpha, &ad);
        images.extend([d, ad]);
    }
    v
}

/// Textbook BiCGSTAB (van der Vorst, 1992).
fn textbook_bicgstab(a: &Matrix, b: &[f64], k: usize) -> Vec<f64> {
    let (mut x, mut r, mut p) = (vec![0.0; b.len()], b.to_vec(), b.to_vec());
    for _ in 0..k {
        let rho = dot(b, &r);
        let v = apply(a, &p);
        let alpha = rho / dot(b, &v);
        let mut s = r;
        axpy(&mut s, -alpha, &v);
        let t = apply(a, &s);
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

/// x̂ + σ² Jᵀ Aᵀ v with v solved for first, on matrices: MMPS as the paper states it.
fn textbook<D: Denoiser<Reference>>(
    backend: &Reference,
    denoiser: &D,
    measurement: &Measurement<Reference>,
    solver: Solver,
    (x_t, sigma): (&HostTensor<f64>, &[f64]),
) -> Vec<f64> {
    let solve = match solver.krylov {
        Krylov::Cg => textbook_cg,
        Krylov::Gmres => textbook_gmres,
        Krylov::Bicgstab => textbook_bicgstab,
    };
    let condition = denoiser.condition(backend, sigma, Keep::Input);
    let (mut x_hat, saved) = denoiser.forward(backend, x_t, &condition, Keep::Input);
    let saved = saved.unwrap();
    let residual = measurement.residual(backend, &x_hat);
    for n in 0..x_t.shape().n {
        let sigma = sigma[n % sigma.len()];
        let a_t = probe(backend, residual.shape(), n, |v| measurement.operator.adjoint(backend, v));
        let a = probe(backend, x_t.shape(), n, |x| measurement.operator.forward(backend, x));
        let j_t = probe(backend, x_t.shape(), n, |u| denoiser.vjp(backend, &condition, &saved, u));
        let mut system = probe(backend, residual.shape(), n, |p| {
            let mut q = backend.copy(p);
            let g = apply(&a, &apply(&j_t, &apply(&a_t, p.row(n))));
            q.row_mut(n).iter_mut().zip(g).for_each(|(q, g)| *q = sigma * sigma * g);
            q
        });
        system.iter_mut().enumerate().for_each(|(i, row)| row[i] += measurement.variance[0]);
        let v = solve(&system, residual.row(n), solver.iterations);
        axpy(x_hat.row_mut(n), sigma * sigma, &apply(&j_t, &apply(&a_t, &v)));
    }
    x_hat.to_vec()
}

/// The folded solve agrees with the textbook one; both are sums of the same few terms in f64, the systems' condition is
/// below 10⁴.
fn folded_is_textbook<D: Denoiser<Reference>>(backend: &Reference, denoiser: &D) {
    for dense in [true, false] {
        let measurement = measurement(backend, 0.1, dense);
        for sigma in [&[0.7][..], &[0.2, 1.0, 5.0]] {
            let x_t = noisy(backend, sigma);
            for (krylov, k) in METHODS.into_iter().flat_map(|krylov| (1..=4).map(move |k| (krylov, k))) {
                let solver = solver(krylov, k, 0.0);
                let (folded, counts) = mmps(backend, denoiser, &measurement, solver, (&x_t, sigma));
                let textbook = textbook(backend, denoiser, &measurement, solver, (&x_t, sigma));
                let error = distance(&folded, &textbook);
                assert!(error < 1e-10, "{krylov:?}({k}), dense {dense}, sigma {sigma:?}: {error:e}");
                assert_eq!(counts.breakdowns, [0; 3], "{krylov:?}({k})");
            }
        }
    }
}

#[test]
fn folded_is_textbook_for_a_jacobian_that_is_not_symmetric() {
    folded_is_textbook(&Reference::new(), &Smooth::new(IMAGE.row(), 0.3, 10));
}

#[test]
fn folded_is_textbook_for_a_gaussian() {
    let d = IMAGE.row();
    let factor = normals(d * 3, 21).iter().map(|u| 0.5 * u).collect();
    folded_is_textbook(&Reference::new(), &Gaussian::new(normals(d, 20), vec![0.3; d], factor).unwrap());
}

#[test]
fn vjps_are_counted() {
    let backend = Reference::new();
    let sigma = [0.7];
    let (measurement, x_t) = (measurement(&backend, 0.1, true), noisy(&backend, &sigma));
    let cost = |solver, covariance| {
        let denoiser = Counting::new(Smooth::new(IMAGE.row(), 0.3, 10));
        let mut mmps = Mmps::new(&backend, &denoiser, &measurement, solver, covariance);
        mmps.estimate(&backend, &x_t, &sigma).unwrap();
        assert_eq!(mmps.counts(&backend).unwrap().vjps, denoiser.vjps() as u64);
        denoiser.vjps()
    };
    for k in 0..=4 {
        assert_eq!(cost(solver(Krylov::Cg, k, 1e-3), Covariance::Tweedie), k);
        assert_eq!(cost(solver(Krylov::Gmres, k, 1e-3), Covariance::Tweedie), k);
        assert_eq!(cost(solver(Krylov::Bicgstab, k, 1e-3), Covariance::Tweedie), 2 * k);
        for (krylov, covariance) in
            METHODS.into_iter().flat_map(|m| [Covariance::Sigma, Covariance::Unit, Covariance::Zero].map(|c| (m, c)))
        {
            assert_eq!(cost(solver(krylov, k, 1e-3), covariance), 1);
        }
    }
}

/// Every sample of a batch has the bits that it has alone.
fn samples_are_alone<B: SmallOps, D: Denoiser<B>>(backend: &B, denoiser: &D, sigma: &[f64], solver: Solver) -> Counts {
    let (measurement, x_t) = (measurement(backend, 0.1, true), noisy(backend, sigma));
    let (together, counts) = mmps(backend, denoiser, &measurement, solver, (&x_t, sigma));
    for (n, x) in together.chunks(IMAGE.row()).enumerate() {
        let alone = measurement.gather(backend, &[n]);
        let x_n = backend.gather_rows(&x_t, &[n]);
        let (x_n, counts_n) = mmps(backend, denoiser, &alone, solver, (&x_n, &sigma[n..=n]));
        assert!(x.iter().zip(&x_n).all(|(x, y)| x.to_bits() == y.to_bits()), "{solver:?}, sample {n}");
        assert_eq!((counts.converged[n], counts.breakdowns[n]), (counts_n.converged[0], counts_n.breakdowns[0]));
    }
    counts
}

#[test]
fn a_converged_sample_keeps_its_bits_while_others_go_on() {
    let denoiser = Smooth::new(IMAGE.row(), 0.3, 10);
    let sigma = [0.005, 0.5, 1.0]; // the first system is nearly Σ_y: easy
    for krylov in METHODS {
        let counts = samples_are_alone(&Reference::new(), &denoiser, &sigma, solver(krylov, 2, 0.01));
        assert_eq!((counts.converged[0], counts.converged[2]), (1, 0), "{krylov:?} does not mix easy and hard");
        samples_are_alone(&Cpu::new(Default::default()).unwrap(), &denoiser, &sigma, solver(krylov, 2, 0.01));
    }
}

/// d = gain(σ) x.
struct Scaled(fn(f64) -> f64);

impl<B: HostBackend> Denoiser<B> for Scaled {
    type Condition = HostTensor<B::Elem>;
    type Saved = ();

    fn condition(&self, backend: &B, sigma: &[f64], _: Keep) -> HostTensor<B::Elem> {
        let gains: Vec<f64> = sigma.iter().map(|s| (self.0)(*s)).collect();
        backend.upload(Shape::rows(gains.len(), 1), &gains)
    }
    fn forward(
        &self,
        backend: &B,
        x: &HostTensor<B::Elem>,
        gains: &HostTensor<B::Elem>,
        _: Keep,
    ) -> (HostTensor<B::Elem>, Option<()>) {
        (self.vjp(backend, gains, &(), x), Some(()))
    }
    fn vjp(&self, backend: &B, gains: &HostTensor<B::Elem>, _: &(), u: &HostTensor<B::Elem>) -> HostTensor<B::Elem> {
        diem::ops::Vector::row_scale(backend, u, gains)
    }
}

#[test]
fn an_indefinite_sample_breaks_down_alone() {
    let denoiser = Scaled(|sigma| if sigma == 2.0 { -0.5 } else { 0.5 });
    let sigma = [1.0, 2.0, 3.0];
    let backend = Reference::new();
    let counts = samples_are_alone(&backend, &denoiser, &sigma, solver(Krylov::Cg, 3, 1e-3));
    assert_eq!(counts.breakdowns, [0, 1, 0]);
    let (measurement, x_t) = (measurement(&backend, 0.1, true), noisy(&backend, &sigma));
    let (x, _) = mmps(&backend, &denoiser, &measurement, solver(Krylov::Cg, 3, 1e-3), (&x_t, &sigma));
    let row = IMAGE.row()..2 * IMAGE.row();
    for (x, x_t) in x[row.clone()].iter().zip(&x_t[row]) {
        assert_eq!(*x, -0.5 * x_t); // stopped before the first iteration: x̂ itself
    }
}

#[test]
fn a_sample_that_is_not_finite_stays_alone() {
    let backend = Reference::new();
    let (denoiser, sigma) = (Smooth::new(IMAGE.row(), 0.3, 10), [0.7]);
    let (measurement, x_t) = (measurement(&backend, 0.1, true), noisy(&backend, &sigma));
    for krylov in METHODS {
        let solver = solver(krylov, 3, 1e-3);
        let (clean, _) = mmps(&backend, &denoiser, &measurement, solver, (&x_t, &sigma));
        let mut spoilt = backend.copy(&x_t);
        spoilt.row_mut(1)[4] = f64::NAN;
        let (x, counts) = mmps(&backend, &denoiser, &measurement, solver, (&spoilt, &sigma));
        let d = IMAGE.row();
        assert_eq!((&x[..d], &x[2 * d..]), (&clean[..d], &clean[2 * d..]), "{krylov:?}");
        assert!(x[d..2 * d].iter().all(|x| x.is_nan()));
        assert_eq!(counts.breakdowns, [0, 1, 0], "{krylov:?}");
    }
}

#[test]
fn a_precise_mask_is_fine_in_f32() {
    let (reference, cpu) = (Reference::new(), Cpu::new(Default::default()).unwrap());
    let denoiser = Smooth::new(IMAGE.row(), 0.3, 10);
    for sigma in [1e-3, 1e-2, 1.0, 1e2] {
        for (krylov, k) in METHODS.into_iter().flat_map(|krylov| (1..=3).map(move |k| (krylov, k))) {
            let solver = solver(krylov, k, 1e-3);
            let (exact, _) = mmps(
                &reference,
                &denoiser,
                &measurement(&reference, 1e-3, false),
                solver,
                (&noisy(&reference, &[sigma]), &[sigma]),
            );
            let (x, _) =
                mmps(&cpu, &denoiser, &measurement(&cpu, 1e-3, false), solver, (&noisy(&cpu, &[sigma]), &[sigma]));
            let error = distance(&x, &exact);

            assert!(error < 2e-6, "{krylov:?}({k}) at {sigma}: {error:e}");
        }
    }
}
