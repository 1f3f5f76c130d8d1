//! The denoiser of a Gaussian prior, against dense f64 linear algebra.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Gaussian};
use diem::linalg::{Cholesky, Matrix};
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Dplr, Vector};

const SIGMAS: [f64; 5] = [1e-3, 0.03, 1.0, 7.0, 1e2];

/// Standard normal numbers.
fn random(len: usize, sample: u32) -> Vec<f64> {
    (0..len.div_ceil(4) as u32)
        .flat_map(|block| Stream::new(5, Purpose::Test).normals(sample, block))
        .take(len)
        .collect()
}

/// Diagonal plus rank 4 in 15 dimensions, and full rank with the diagonal of the paper's manifold.
fn priors() -> [Gaussian; 2] {
    let diag = random(15, 0).iter().map(|z| z * z).collect();
    let low_rank = Gaussian::new(random(15, 1), diag, random(15 * 4, 2)).unwrap();
    let full_rank = Gaussian::new(random(15, 3), vec![1e-6; 15], random(15 * 15, 4)).unwrap();
    [low_rank, full_rank]
}

/// d of every row of `x`, by solving with Σ_x + σ² I.
fn dense_denoiser(prior: &Gaussian, sigma: f64, x: &[f64]) -> Vec<f64> {
    let cov = prior.covariance();
    let noisy = Cholesky::new(cov.clone().plus(&Matrix::scaled_identity(cov.rows(), sigma * sigma))).unwrap();
    let denoise = |x: &[f64]| {
        let mut z: Vec<f64> = x.iter().zip(prior.mean()).map(|(x, mean)| x - mean).collect();
        noisy.solve(&mut z);
        prior.mean().iter().zip(cov.apply(&z)).map(|(mean, y)| mean + y).collect::<Vec<_>>()
    };
    x.chunks_exact(cov.rows()).flat_map(denoise).collect()
}

fn denoise<B: Dplr + Vector>(backend: &B, prior: &Gaussian, sigma: &[f64], shape: Shape, x: &[f64]) -> Vec<f64> {
    let condition = prior.condition(backend, sigma, Keep::Nothing);
    let x_hat = prior.forward(backend, &backend.upload(shape, x), &condition, Keep::Nothing).0;
    backend.to_vec(&x_hat).unwrap()
}

/// Panics unless the two are close in norm, relative to `scale`.
fn assert_close(found: &[f64], expected: &[f64], scale: &[f64], tolerance: f64) {
    assert!(found.iter().chain(expected).all(|v| v.is_finite()), "not finite");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|v| v * v).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b));
    let size = norm(&mut scale.iter().copied());
    assert!(error <= tolerance * size, "error {error:e}, relative {:e}", error / size);
}

#[test]
fn denoiser_is_the_dense_solve() {
    let shape = Shape::new(3, 1, 5, 3);
    for prior in priors() {
        for sigma in SIGMAS {
            let x: Vec<f64> = random(45, 6).iter().map(|z| sigma.hypot(1.0) * z).collect();
            let expected = dense_denoiser(&prior, sigma, &x);
            let reference = denoise(&Reference::new(), &prior, &[sigma], shape, &x);
            // the dense solve: 1e-16 times the condition number of Σ_x + σ² I, at most (60 + 1e-6) / 2e-6
            assert_close(&reference, &expected, &expected, 1e-8);
            // f32: each element is a sum of J x with f64 accumulation, rounded twice, of inputs rounded once
            let cpu = denoise(&Cpu::new(Options::default()).unwrap(), &prior, &[sigma], shape, &x);
            assert_close(&cpu, &reference, &x, 1e-6);
        }
    }
}

#[test]
fn nothing_cancels_when_diagonal_and_noise_are_small() {
    let backend = Reference::new();
    let [_, prior] = priors();
    let (cov, sigma, u) = (prior.covariance(), 1e-3, random(15, 7));
    let shape = Shape::rows(1, 15);
    let condition = prior.condition(&backend, &[sigma], Keep::Input);
    let ju = backend.to_vec(&condition.jacobian.apply(&backend, &backend.upload(shape, &u))).unwrap();
    // J (Σ_x + σ² I) = Σ_x: no solve on the other side, so only the roundings of J itself, each relative to Σ_x
    let mut v = cov.apply(&u);
    v.iter_mut().zip(&u).for_each(|(v, u)| *v += sigma * sigma * u);
    let jv = backend.to_vec(&condition.jacobian.apply(&backend, &backend.upload(shape, &v))).unwrap();
    assert_close(&jv, &cov.apply(&u), &v, 1e-12);
    // in the directions that the prior hardly has, u - J u is most of u: the eigenvalues of J are below 1
    let quadratic: f64 = u.iter().zip(&ju).map(|(u, ju)| u * ju).sum();
    assert!(quadratic > 0.0 && quadratic < u.iter().map(|u| u * u).sum());
}

#[test]
fn vjp_is_the_finite_difference() {
    let backend = Reference::new();
    let (d, shape) = (15, Shape::rows(1, 15));
    for prior in priors() {
        for sigma in SIGMAS {
            let (x, u) = (random(d, 8), random(d, 9));
            let condition = prior.condition(&backend, &[sigma], Keep::Input);
            let (_, saved) = prior.forward(&backend, &backend.upload(shape, &x), &condition, Keep::Input);
            let g = prior.vjp(&backend, &condition, &saved.unwrap(), &backend.upload(shape, &u));
            let difference = |i: usize| {
                let moved = |h: f64| {
                    let x: Vec<f64> = (0..d).map(|j| if i == j { x[j] + h } else { x[j] }).collect();
                    let y = denoise(&backend, &prior, &[sigma], shape, &x);
                    y.iter().zip(&u).map(|(y, u)| y * u).sum::<f64>()
                };
                (moved(1.0) - moved(-1.0)) / 2.0 // of an affine function: any step is exact
            };
            let expected: Vec<f64> = (0..d).map(difference).collect();
            // at σ = 100 the mean of the prior, 1e3 times J u, rounds to 1e-16
            assert_close(&backend.to_vec(&g).unwrap(), &expected, &expected, 1e-11);
        }
    }
}

#[test]
fn every_sample_may_have_its_sigma() {
    let backend = Reference::new();
    let x = random(15 * SIGMAS.len(), 10);
    for prior in priors() {
        let together = denoise(&backend, &prior, &SIGMAS, Shape::rows(SIGMAS.len(), 15), &x);
        for (n, sigma) in SIGMAS.into_iter().enumerate() {
            let rows = n * 15..(n + 1) * 15;
            let alone = denoise(&backend, &prior, &[sigma], Shape::rows(1, 15), &x[rows.clone()]);
            assert_eq!(alone, together[rows]);
        }
    }
}

#[test]
fn posterior_covariance_inverts_the_sum_of_precisions() {
    let backend = Reference::new();
    for prior in priors() {
        for sigma in SIGMAS {
            let (v, s2) = (random(15, 11), sigma * sigma);
            let covariance = prior.posterior_covariance(&backend, &[sigma]);
            let w = backend.to_vec(&covariance.apply(&backend, &backend.upload(Shape::rows(1, 15), &v))).unwrap();
            // (Σ_x⁻¹ + σ⁻² I) w = v, multiplied by σ² Σ_x
            let left: Vec<f64> = prior.covariance().apply(&w).iter().zip(&w).map(|(y, w)| y + s2 * w).collect();
            let right: Vec<f64> = prior.covariance().apply(&v).iter().map(|y| s2 * y).collect();
            assert_close(&left, &right, &right, 1e-12); // a few hundred roundings
        }
    }
}

#[test]
fn huge_factors_do_not_panic() {
    // two equal columns of 1e12: I + Uᵀ M⁻¹ U is singular in f64
    let prior = Gaussian::new(vec![0.0; 15], vec![0.0; 15], vec![1e12; 30]).unwrap();
    let x = random(15, 12);
    let found = denoise(&Reference::new(), &prior, &[1e-3], Shape::rows(1, 15), &x);
    assert!(found.iter().all(|v| v.is_finite()), "{found:?}");
}

#[test]
fn impossible_priors_are_refused() {
    let refused = [
        Gaussian::new(vec![], vec![], vec![]),
        Gaussian::new(vec![0.0; 3], vec![1.0; 2], vec![]),
        Gaussian::new(vec![0.0; 3], vec![1.0; 3], vec![1.0; 4]),
        Gaussian::new(vec![0.0; 3], vec![1.0, -1.0, 1.0], vec![]),
        Gaussian::new(vec![0.0; 3], vec![1.0; 3], vec![f64::NAN; 3]),
    ];
    for prior in refused {
        assert!(prior.is_err(), "{prior:?}");
    }
}
