//! MMPS: the folded solve against the textbook one, what it costs, and that every sample is on its own.

mod toys;

use diem::backend::cpu::Cpu;
use diem::backend::host::{HostBackend, HostTensor};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Estimator, Gaussian};
use diem::operators::{DenseMatrix, Measurement, Operator, PixelMask};
use diem::ops::cg::{BREAKDOWN, CONVERGED};
use diem::posterior::solvers::{Krylov, Solver, System};
use diem::posterior::{Counts, Covariance, Mmps, Posterior};
use toys::{Counting, SmallOps, Smooth, distance, mask, normal, normals, textbook};

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

/// Both solves are sums of the same few terms in f64, and the systems' condition is below 10⁴.
fn assert_folded_is_textbook<D: Denoiser<Reference>>(
    denoiser: &D,
    dense: bool,
    solver: Solver,
    covariance: Covariance,
) {
    let backend = Reference::new();
    let measurement = measurement(&backend, 0.1, dense);
    for sigma in [&[0.7][..], &[0.2, 1.0, 5.0]] {
        let x_t = noisy(&backend, sigma);
        let mut mmps = Mmps::new(&backend, denoiser, &measurement, solver, covariance);
        let folded = mmps.estimate(&backend, &x_t, sigma).unwrap();
        let textbook = textbook::mmps(&backend, denoiser, &measurement, solver, covariance, (&x_t, sigma));
        let error = distance(&folded, &textbook);
        assert!(error < 1e-10, "{solver:?}, dense {dense}, sigma {sigma:?}: {error:e}");
        assert_eq!(mmps.counts(&backend).unwrap().breakdowns, [0; 3], "{solver:?}");
    }
}

fn gaussian() -> Gaussian {
    let d = IMAGE.row();
    let factor = normals(d * 3, 21).iter().map(|u| 0.5 * u).collect();
    Gaussian::new(normals(d, 20), vec![0.3; d], factor).unwrap()
}

#[test]
fn folded_is_textbook() {
    let smooth = Smooth::new(IMAGE.row(), 0.3, 10); // its J is not symmetric
    for (krylov, k) in METHODS.into_iter().flat_map(|krylov| (1..=4).map(move |k| (krylov, k))) {
        for dense in [true, false] {
            assert_folded_is_textbook(&smooth, dense, solver(krylov, k, 0.0), Covariance::Tweedie);
            assert_folded_is_textbook(&gaussian(), dense, solver(krylov, k, 0.0), Covariance::Tweedie);
        }
    }
}

#[test]
fn folded_is_textbook_for_every_heuristic() {
    let smooth = Smooth::new(IMAGE.row(), 0.3, 10);
    for krylov in METHODS {
        for covariance in [Covariance::Sigma, Covariance::Unit, Covariance::Prior(&gaussian())] {
            assert_folded_is_textbook(&smooth, true, solver(krylov, 2, 0.0), covariance);
        }
        if krylov != Krylov::Bicgstab {
            // a multiple of I: solved by the first product, and only rounding errors are left for a second
            assert_folded_is_textbook(&smooth, true, solver(krylov, 1, 0.0), Covariance::Zero);
        }
    }
}

#[test]
fn the_gaussian_covariance_stands_in_from_its_noise_level_on() {
    let (backend, smooth, prior) = (Reference::new(), Smooth::new(IMAGE.row(), 0.3, 10), gaussian());
    let measurement = measurement(&backend, 0.1, true);
    let below = Covariance::TweedieBelow { sigma: 1.0, prior: &prior };
    for (sigma, is) in [
        (&[0.99][..], Covariance::Tweedie),
        (&[1.0], Covariance::Prior(&prior)),
        (&[1.0, 2.0, 5.0], Covariance::Prior(&prior)),
        (&[0.2, 2.0, 5.0], Covariance::Tweedie),
    ] {
        let x_t = noisy(&backend, sigma);
        let [found, expected] = [below, is].map(|covariance| {
            let mut mmps = Mmps::new(&backend, &smooth, &measurement, solver(Krylov::Cg, 2, 0.0), covariance);
            let x_hat = mmps.estimate(&backend, &x_t, sigma).unwrap();
            (backend.to_vec(&x_hat).unwrap(), mmps.counts(&backend).unwrap().vjps)
        });
        assert!(found == expected, "sigma {sigma:?}");
    }
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

/// ((1, 0.499), (1, 0.5)) is not symmetric: after one step from (1, 0), p = (1, -1) has the curvature 0.001, and the textbook's
/// α = 1000 would leave a residual of ‖(-501, -501)‖ where ‖(0, -1)‖ was; but <r, q> = -0.5 gives the direction away.
fn lost_conjugacy_is_a_breakdown<B: SmallOps>(backend: &B) {
    let shape = Shape::rows(2, 2);
    let residual = backend.upload(shape, &[1.0, 0.0, 1.0, 0.0]);
    let system = System {
        g: |p: &B::Tensor| backend.copy(p),
        q: |p: &B::Tensor, _: &B::Tensor| {
            let p = backend.to_vec(p).unwrap();
            // the other sample's system is symmetric: ((1, 1), (1, 2)), solved by two steps
            backend.upload(shape, &[p[0] + 0.499 * p[1], p[0] + 0.5 * p[1], p[2] + p[3], p[2] + 2.0 * p[3]])
        },
        masked: None,
    };
    let solution = solver(Krylov::Cg, 2, 0.0).solve(backend, residual, shape, system);
    assert_eq!(backend.to_vec(&solution.s).unwrap(), [1.0, 0.0, 2.0, -1.0]); // small integers: exact
    assert_eq!(backend.to_vec(&solution.status).unwrap(), [BREAKDOWN, CONVERGED]);
}

#[test]
fn a_direction_that_is_not_conjugate_is_not_followed() {
    lost_conjugacy_is_a_breakdown(&Reference::new());
    lost_conjugacy_is_a_breakdown(&Cpu::new(Default::default()).unwrap());
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

#[test]
fn nothing_is_allocated_after_the_first_call() {
    let cpu = Cpu::new(Default::default()).unwrap();
    let (denoiser, sigma) = (Smooth::new(IMAGE.row(), 0.3, 10), [0.7]);
    let (measurement, x_t) = (measurement(&cpu, 0.1, true), noisy(&cpu, &sigma));
    for krylov in METHODS {
        let mut mmps = Mmps::new(&cpu, &denoiser, &measurement, solver(krylov, 3, 1e-3), Covariance::Tweedie);
        drop(mmps.estimate(&cpu, &x_t, &sigma).unwrap());
        let before = cpu.memory();
        drop(mmps.estimate(&cpu, &x_t, &sigma).unwrap());
        assert_eq!(cpu.memory().fresh, before.fresh, "{krylov:?}");
    }
}
