//! The methods that MMPS is compared with: each against its formula, or against MMPS where they must agree.

mod toys;

use diem::backend::reference::Reference;
use diem::backend::{Keep, Shape};
use diem::diffusion::{Denoiser, Gaussian, Plan, Sampler, Schedule};
use diem::operators::{Measurement, PixelMask};
use diem::ops::Vector;
use diem::posterior::solvers::Krylov;
use diem::posterior::{Counts, CovarianceKind, Method, Settings};
use toys::{Smooth, distance, mask, normal};

const IMAGE: Shape = Shape::new(3, 5, 4, 2);

fn measurement(backend: &Reference) -> Measurement<Reference> {
    let operator = PixelMask::new(mask(backend, IMAGE.with_c(1), 5), IMAGE).unwrap();
    Measurement::new(backend, &normal(backend, IMAGE, 2), &[0.3], Box::new(operator)).unwrap()
}

fn plan() -> Plan {
    Sampler::Ddpm.plan(Schedule::default(), 64).unwrap()
}

/// x̂_post at `sigma` by `settings` at a random x_t.
fn estimate<D: Denoiser<Reference>>(settings: Settings, denoiser: &D, sigma: f64) -> (Vec<f64>, Counts) {
    let backend = Reference::new();
    let (measurement, plan) = (measurement(&backend), plan());
    let x_t = normal(&backend, IMAGE, 3);
    let mut estimator = settings.estimator(&backend, denoiser, &measurement, None, &plan).unwrap();
    let x_hat = estimator.estimate(&backend, &x_t, &[sigma]).unwrap();
    (x_hat.to_vec(), estimator.counts(&backend).unwrap())
}

fn settings(method: Method) -> Settings {
    Settings { method, solver: Krylov::Cg, iterations: 20, rtol: 1e-14, ..Settings::default() }
}

/// For the prior N(0, I) and a mask V[x | x_t] is diagonal and that of `unit`, so the approximations are exact; DiffPIR's c
/// = σ²/λ is σ²/(1+σ²) for λ = 1 + σ².
#[test]
fn all_moment_methods_agree_on_white_noise() {
    let white = Gaussian::new(vec![0.0; IMAGE.row()], vec![1.0; IMAGE.row()], Vec::new()).unwrap();
    for sigma in [0.1f64, 1.0, 10.0] {
        let (exact, counts) = estimate(settings(Method::Mmps), &white, sigma);
        assert_eq!((counts.vjps, counts.converged), (20, vec![1; 3]));
        for (method, vjps) in [(Method::Pgdm, 1), (Method::Tmpd, 2), (Method::Diffpir, 0)] {
            let settings = Settings { lambda: 1.0 + sigma * sigma, ..settings(method) };
            let (x, counts) = estimate(settings, &white, sigma);
            assert!(distance(&x, &exact) < 1e-12, "{method:?} at {sigma}"); // a few roundings
            assert_eq!((counts.calls, counts.vjps), (1, vjps), "{method:?}");
        }
    }
}

#[test]
fn dps_moves_along_its_gradient() {
    let (backend, denoiser, sigma, zeta) = (Reference::new(), Smooth::new(IMAGE.row(), 0.3, 10), 0.7, 2.0);
    let (x, counts) = estimate(Settings { zeta, ..settings(Method::Dps) }, &denoiser, sigma);
    assert_eq!(counts.vjps, 1);
    // a DDPM step adds τ times the change of x̂: together ζ Jᵀ Aᵀ r/‖r‖, r = y - A x̂
    let (measurement, plan) = (measurement(&backend), plan());
    let condition = Denoiser::<Reference>::condition(&denoiser, &backend, &[sigma], Keep::Input);
    let (x_hat, saved) = denoiser.forward(&backend, &normal(&backend, IMAGE, 3), &condition, Keep::Input);
    let r = measurement.residual(&backend, &x_hat);
    let g = denoiser.vjp(&backend, &condition, &saved.unwrap(), &measurement.operator.adjoint(&backend, &r));
    let norms = backend.row_dot(&r, &r);
    let tau = plan.updates[0].weights.x_hat;
    for n in 0..IMAGE.n {
        let moved: Vec<f64> = (0..IMAGE.row()).map(|i| tau * (x[n * IMAGE.row() + i] - x_hat.row(n)[i])).collect();
        let expected: Vec<f64> = g.row(n).iter().map(|g| zeta / norms[n].sqrt() * g).collect();
        assert!(distance(&moved, &expected) < 1e-12, "sample {n}"); // a few roundings
    }
    // after the last estimate there is no step
    let (last, _) = estimate(Settings { zeta, ..settings(Method::Dps) }, &denoiser, plan.sigma_end);
    let condition = Denoiser::<Reference>::condition(&denoiser, &backend, &[plan.sigma_end], Keep::Nothing);
    assert_eq!(last, denoiser.forward(&backend, &normal(&backend, IMAGE, 3), &condition, Keep::Nothing).0.to_vec());
}

#[test]
fn impossible_settings_are_refused() {
    let refused = |settings: Settings| settings.check().expect_err("refused").to_string();
    let good = Settings::default();
    assert!(good.check().is_ok());
    assert_eq!(refused(Settings { iterations: 0, ..good }), "--iterations: expected at least 1, found 0");
    let long = Settings { solver: Krylov::Gmres, iterations: 65, ..good };
    assert_eq!(refused(long), "--iterations: expected at most 64 with gmres, found 65");
    assert_eq!(refused(Settings { rtol: -1.0, ..good }), "--rtol: expected 0 or more and below 1, found -1");
    assert_eq!(refused(Settings { zeta: f64::NAN, ..good }), "--zeta: expected a positive number, found NaN");
    assert_eq!(refused(Settings { lambda: 0.0, ..good }), "--lambda: expected a positive number, found 0");

    let backend = Reference::new();
    let (measurement, denoiser) = (measurement(&backend), Smooth::new(IMAGE.row(), 0.3, 10));
    let prior = Settings { covariance: CovarianceKind::Prior, ..good };
    let error = prior.estimator(&backend, &denoiser, &measurement, None, &plan()).err().expect("no prior").to_string();
    assert!(error.starts_with("--covariance prior: expected a model with a fitted Gaussian"), "{error}");
}
