//! The samplers: their weights, their exact error on a Gaussian, and what the driver promises.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Shape};
use diem::diffusion::propagate::{propagate, std_errors};
use diem::diffusion::samplers::{Draws, Failure, Plan, sample, start};
use diem::diffusion::{Estimator, Gaussian, Prior, Sampler, Schedule};
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Dplr, Noise, Vector};

const SAMPLERS: [Sampler; 6] = [
    Sampler::Ddpm,
    Sampler::Ddim { eta: 0.0 },
    Sampler::Ddim { eta: 0.6 },
    Sampler::Pc { corrections: 2, delta: 0.1 },
    Sampler::TwoM,
    Sampler::TwoMSde,
];

fn plan(sampler: Sampler, steps: usize) -> Plan {
    sampler.plan(Schedule::default(), steps).unwrap()
}

/// A prior of `d` dimensions, diagonal plus rank 2, standard deviations near 1.
fn prior(d: usize) -> Gaussian {
    let u = |sample: u32, len: usize| Stream::new(6, Purpose::Test).uniforms(sample).take(len).collect::<Vec<_>>();
    Gaussian::new(u(0, d), u(1, d).iter().map(|u| 0.1 + u).collect(), u(2, 2 * d)).unwrap()
}

/// Draws of the prior for the samples of these numbers.
fn draw<B: Noise + Vector + Dplr>(
    backend: &B,
    prior: &Gaussian,
    plan: &Plan,
    shape: Shape,
    samples: &[u32],
) -> Draws<B> {
    let run = Stream::new(17, Purpose::Test);
    let mean = backend.upload(shape.with_n(1), prior.mean());
    let x_1 = start(backend, plan, Some(&mean), shape.with_n(samples.len()), run, samples);
    sample(backend, &mut Prior(prior), plan, x_1, run, samples, &mut |_| ()).unwrap()
}

#[test]
fn ddim_with_all_the_noise_is_ddpm() {
    for steps in [1, 7, 256] {
        assert_eq!(plan(Sampler::Ddim { eta: 1.0 }, steps), plan(Sampler::Ddpm, steps));
    }
}

#[test]
fn weights_keep_what_every_sampler_must_keep() {
    for sampler in SAMPLERS {
        for update in plan(sampler, 9).updates.iter().filter(|u| u.correction == 0) {
            let w = update.weights;
            let sigma_s = Schedule::default().sigma(1.0 - (update.step + 1) as f64 / 9.0);
            // a constant estimate at x_t itself stays where it is
            assert!((w.x + w.x_hat + w.x_hat_prev - 1.0).abs() < 1e-15, "{sampler:?}");
            // for a prior that is a point, the variance of x_s is σ_s² at every step, not only in the limit
            let variance = (w.x * update.sigma).powi(2) + w.noise.powi(2);
            assert!((variance / sigma_s.powi(2) - 1.0).abs() < 1e-13, "{sampler:?}"); // a few roundings
        }
    }
}

#[test]
fn corrections_leave_the_marginal_almost_alone() {
    let delta = 0.1;
    for update in plan(Sampler::Pc { corrections: 1, delta }, 9).updates.iter().filter(|u| u.correction == 1) {
        // of N(0, 1): x_s has the variance 1 + σ², and x̂ = x_s / (1 + σ²)
        let (w, noise) = (update.weights, update.sigma.powi(2));
        let variance = 1.0 + noise;
        let after = (w.x + w.x_hat / variance).powi(2) * variance + w.noise.powi(2);
        // a Langevin step of finite length adds δ² σ⁴ / (1 + σ²), second order in δ
        let expected = variance + (delta * noise).powi(2) / variance;
        assert!((after / expected - 1.0).abs() < 1e-14, "{after} {expected}"); // a few roundings
    }
}

#[test]
fn one_step_has_two_estimates() {
    struct Constant(Vec<f64>);
    impl Estimator<Reference> for Constant {
        fn estimate(&mut self, backend: &Reference, x_t: &Tensor, sigma: &[f64]) -> diem::Result<Tensor> {
            self.0.extend(sigma);
            let mut x_hat = backend.zeros(x_t.shape());
            backend.fill(&mut x_hat, 0.25);
            Ok(x_hat)
        }
    }
    let backend = Reference::new();
    for sampler in SAMPLERS.into_iter().filter(|s| !matches!(s, Sampler::Pc { .. })) {
        let (plan, run, mut constant) = (plan(sampler, 1), Stream::new(0, Purpose::Test), Constant(Vec::new()));
        let x_1 = start(&backend, &plan, None, Shape::rows(1, 5), run, &[0]);
        let mut calls = Vec::new();
        let draws = sample(&backend, &mut constant, &plan, x_1, run, &[0], &mut |done| calls.push(done)).unwrap();
        assert_eq!(backend.to_vec(&draws.x_0).unwrap(), [0.25; 5]);
        assert_eq!((constant.0, calls, plan.calls()), (vec![1e2, 1e-3], vec![1, 2], 2));
    }
}

#[test]
fn impossible_settings_are_refused() {
    let schedule = Schedule::default();
    assert!(Sampler::Ddpm.plan(schedule, 0).is_err());
    assert!(Sampler::Ddpm.plan(schedule, 1 << 16).is_err());
    for eta in [-0.1, 1.1, f64::NAN] {
        assert!(Sampler::Ddim { eta }.plan(schedule, 4).is_err());
    }
    for (corrections, delta) in [(1, 0.0), (1, f64::NAN), (1, 1.5), (1 << 16, 0.1)] {
        assert!(Sampler::Pc { corrections, delta }.plan(schedule, 4).is_err());
    }
}

#[test]
fn std_errors_are_those_of_the_design() {
    let error = |sampler: Sampler, steps: usize| {
        100.0 * std_errors(&[sampler], &[steps], Schedule::default(), &[1.0]).unwrap()[0].error
    };
    let ddim = Sampler::Ddim { eta: 0.0 };
    // percent, as printed: the last digit is rounded
    for (sampler, steps, expected, half_digit) in [
        (Sampler::Ddpm, 64, 8.4, 0.05),
        (Sampler::Ddpm, 256, 2.2, 0.05),
        (Sampler::Ddpm, 1024, 0.6, 0.05),
        (ddim, 64, 4.4, 0.05),
        (ddim, 256, 1.1, 0.05),
        (ddim, 1024, 0.3, 0.05),
        (Sampler::TwoM, 32, 0.8, 0.05),
        (Sampler::TwoM, 64, 0.2, 0.05),
    ] {
        let found = error(sampler, steps);
        assert!((found - expected).abs() < half_digit, "{sampler:?}, {steps} steps: {found}%");
    }
    assert!(error(Sampler::TwoM, 32) < error(Sampler::Ddpm, 256));
    assert!(error(Sampler::TwoMSde, 32) < error(Sampler::Ddpm, 256));
}

#[test]
fn samplers_converge_with_their_order() {
    let ddim = Sampler::Ddim { eta: 0.0 };
    for (sampler, order) in [(Sampler::Ddpm, 1), (ddim, 1), (Sampler::TwoM, 2), (Sampler::TwoMSde, 2)] {
        let rows = std_errors(&[sampler], &[64, 128], Schedule::default(), &[1.0]).unwrap();
        let ratio = rows[0].error / rows[1].error / f64::from(1 << order);
        // the next order contributes a few steps of ln σ / 2, 9% at 128; 0.6 tells order 1 from 2
        assert!((ratio - 1.0).abs() < 0.1, "{sampler:?}: {ratio}");
    }
}

#[test]
fn samplers_agree_in_the_limit() {
    let (backend, prior, image) = (Reference::new(), prior(5), Shape::new(1, 1, 5, 1));
    let cov = prior.covariance();
    for sampler in SAMPLERS {
        let plan = plan(sampler, 1024);
        let x_0 = propagate(&backend, &mut Prior(&prior), &plan, image, Some(prior.mean())).unwrap();
        assert!(x_0.nonlinearity < 1e-12, "{}", x_0.nonlinearity); // rounding
        for i in 0..5 {
            assert!((x_0.mean[i] - prior.mean()[i]).abs() < 1e-10, "{sampler:?}"); // the mean is a fixed point
            for j in 0..5 {
                // twice DDPM's 0.56% of a standard deviation, and PC's errors with it
                let scale = (cov[(i, i)] * cov[(j, j)]).sqrt();
                assert!((x_0.cov[(i, j)] - cov[(i, j)]).abs() < 0.0125 * scale, "{sampler:?}");
            }
        }
    }
    // the deterministic ones follow the same path: from equal x_1 to equal x_0
    let path = |sampler, steps| draw(&backend, &prior, &plan(sampler, steps), image, &[3]).x_0;
    let (ddim, two_m) = (path(Sampler::Ddim { eta: 0.0 }, 2048), path(Sampler::TwoM, 256));
    for (a, b) in ddim.iter().zip(two_m.iter()) {
        assert!((a - b).abs() < 0.005, "{a} {b}"); // DDIM's 0.14% at 2048 steps, of a draw below 3
    }
}

#[test]
fn draws_have_the_propagated_covariance() {
    let (cpu, prior, image) = (Cpu::new(Options::default()).unwrap(), prior(3), Shape::rows(1, 3));
    let count = 20_000;
    let samples: Vec<u32> = (0..count).collect();
    for sampler in SAMPLERS {
        let plan = plan(sampler, 12);
        let exact = propagate(&Reference::new(), &mut Prior(&prior), &plan, image, Some(prior.mean())).unwrap();
        let x = cpu.to_vec(&draw(&cpu, &prior, &plan, image, &samples).x_0).unwrap();
        assert!(x.iter().all(|v| v.is_finite()));
        let average = |f: &dyn Fn(&[f64]) -> f64| x.chunks_exact(3).map(f).sum::<f64>() / f64::from(count);
        let std_error = |variance: f64| 5.0 * (variance / f64::from(count)).sqrt();
        for i in 0..3 {
            let (mean, c) = (exact.mean[i], |i, j| exact.cov[(i, j)]);
            assert!((average(&|x| x[i]) - mean).abs() < std_error(c(i, i)), "{sampler:?}, mean {i}");
            for j in 0..3 {
                let product = average(&|x| (x[i] - mean) * (x[j] - exact.mean[j]));
                let bound = std_error(c(i, i) * c(j, j) + c(i, j).powi(2));
                assert!((product - c(i, j)).abs() < bound, "{sampler:?}, covariance {i}, {j}");
            }
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    fn check<B: Noise + Vector + Dplr>(backend: &B) {
        let (prior, image) = (prior(35), Shape::new(1, 7, 5, 1));
        let all: Vec<u32> = (0..64).collect();
        for sampler in SAMPLERS {
            let plan = plan(sampler, 5);
            let rows = |samples: &[u32]| backend.to_vec(&draw(backend, &prior, &plan, image, samples).x_0).unwrap();
            let batch = rows(&all);
            let seven = rows(&[40, 7, 63, 0, 8, 31, 5]);
            for (row, k) in seven.chunks_exact(35).zip([40, 7, 63, 0, 8, 31, 5]) {
                let bits = |x: &[f64]| x.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
                assert!(row.iter().all(|v| v.is_finite()));
                assert_eq!(bits(row), bits(&batch[k * 35..][..35]), "{sampler:?}, sample {k} of {}", backend.name());
                assert_eq!(bits(row), bits(&rows(&[k as u32])), "{sampler:?}, sample {k} alone");
            }
        }
    }
    check(&Reference::new());
    check(&Cpu::new(Options::default()).unwrap());
}

type Tensor = <Reference as Backend>::Tensor;

/// The prior's estimate, with one element of one row not finite in one call.
struct Faulty<'a> {
    prior: Prior<'a, Gaussian>,
    row: usize,
    call: usize,
    value: f64,
}

impl Estimator<Reference> for Faulty<'_> {
    fn estimate(&mut self, backend: &Reference, x_t: &Tensor, sigma: &[f64]) -> diem::Result<Tensor> {
        let mut x_hat = self.prior.estimate(backend, x_t, sigma)?;
        if self.call == 0 {
            x_hat.row_mut(self.row)[1] = self.value;
        }
        self.call = self.call.wrapping_sub(1);
        Ok(x_hat)
    }
}

#[test]
fn a_sample_fails_alone() {
    let (backend, prior, run) = (Reference::new(), prior(4), Stream::new(17, Purpose::Test));
    let samples = [20, 21, 22];
    for sampler in SAMPLERS.into_iter().filter(|s| !matches!(s, Sampler::Pc { .. })) {
        let plan = plan(sampler, 6);
        let mean = backend.upload(Shape::rows(1, 4), prior.mean());
        let healthy = draw(&backend, &prior, &plan, Shape::rows(1, 4), &samples);
        assert_eq!(healthy.failures, []);
        for (call, value) in [(0, f64::NAN), (3, f64::INFINITY), (6, f64::NEG_INFINITY)] {
            let x_1 = start(&backend, &plan, Some(&mean), Shape::rows(3, 4), run, &samples);
            let mut faulty = Faulty { prior: Prior(&prior), row: 1, call, value };
            let draws = sample(&backend, &mut faulty, &plan, x_1, run, &samples, &mut |_| ()).unwrap();
            assert_eq!(draws.failures, [Failure { sample: 21, step: call }]);
            assert!(draws.x_0.row(1).iter().all(|v| v.is_nan()));
            assert_eq!(draws.x_0.row(0), healthy.x_0.row(0));
            assert_eq!(draws.x_0.row(2), healthy.x_0.row(2));
        }
    }
}

#[test]
fn nothing_is_allocated_after_the_second_step() {
    let (cpu, prior, run) = (Cpu::new(Options::default()).unwrap(), prior(30), Stream::new(0, Purpose::Test));
    let samples = [0, 1, 2, 3];
    for sampler in SAMPLERS {
        let plan = plan(sampler, 8);
        let x_1 = start(&cpu, &plan, None, Shape::rows(4, 30), run, &samples);
        let mut fresh = Vec::new();
        let mut progress = |_| fresh.push(cpu.memory().fresh);
        sample(&cpu, &mut Prior(&prior), &plan, x_1, run, &samples, &mut progress).unwrap();
        assert!(fresh[1..].iter().all(|&count| count == fresh[1]), "{sampler:?}: {fresh:?}");
    }
}

#[test]
fn propagation_notices_what_is_not_affine() {
    struct Curved;
    impl Estimator<Reference> for Curved {
        fn estimate(&mut self, backend: &Reference, x_t: &Tensor, _sigma: &[f64]) -> diem::Result<Tensor> {
            let y: Vec<f64> = x_t.iter().map(|x| x.tanh()).collect();
            Ok(backend.upload(x_t.shape(), &y))
        }
    }
    let plan = plan(Sampler::Ddpm, 4);
    let x_0 = propagate(&Reference::new(), &mut Curved, &plan, Shape::rows(1, 2), Some(&[0.3, -0.2])).unwrap();
    assert!(x_0.nonlinearity > 0.1, "{}", x_0.nonlinearity); // tanh is far from its secant
}
