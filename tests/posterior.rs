//! The posterior is right: for a Gaussian prior the mean and covariance of the samples, carried exactly through the sampler's own
//! steps, meet the closed form. `negative_controls.rs` shows that these tests can fail.

mod toys;

use diem::backend::Backend;
use diem::backend::cpu::Cpu;
use diem::backend::reference::Reference;
use diem::diffusion::Sampler;
use diem::diffusion::samplers::{sample, start};
use diem::ops::noise::{Purpose, Stream};
use diem::posterior::solvers::Solver;
use diem::posterior::{Covariance, Mmps, Posterior};
use toys::exact::{CASES, CONVERGED, D, Errors, IMAGE, plan, prior, propagated_errors};

#[test]
fn moments_meet_the_closed_form() {
    let (backend, prior) = (Reference::new(), prior());
    let (ddpm, two_m_sde) = (plan(Sampler::Ddpm, 1024), plan(Sampler::TwoMSde, 64));
    let (tweedie, fitted) = (Covariance::Tweedie, Covariance::Prior(&prior)); // the same for a Gaussian
    for case in CASES {
        let measurement = case.measurement(&backend, case.operator(&backend), D + 2);
        for (plan, covariance) in [(&ddpm, tweedie), (&two_m_sde, tweedie), (&two_m_sde, fitted)] {
            let mut mmps = Mmps::new(&backend, &prior, &measurement, CONVERGED, covariance);
            let (errors, nonlinearity) = propagated_errors(case, &backend, plan, &mut mmps, prior.mean());
            println!("{case:?}, {} steps: {errors:?}", plan.steps);
            assert!(nonlinearity < 1e-6, "{case:?}: not converged, {nonlinearity:e}");
            assert_eq!(mmps.counts(&backend).unwrap().breakdowns, vec![0; D + 2]);
            assert!(errors.within(0.02), "{case:?}, {} steps: {errors:?}", plan.steps);
        }
    }
}

/// Without noise nothing is forgotten: x_1 is drawn around E\[x\] instead of E\[x | y\], and of that difference δ the flow
/// leaves Σ^½ δ/σ(1), Σ the posterior covariance: by Cauchy and Schwarz at most ‖δ‖/σ(1) posterior std in any coordinate.
#[test]
fn a_deterministic_sampler_remembers_its_start() {
    let (backend, prior) = (Reference::new(), prior());
    let plan = plan(Sampler::TwoM, 64);
    for case in CASES {
        let measurement = case.measurement(&backend, case.operator(&backend), D + 2);
        let mut mmps = Mmps::new(&backend, &prior, &measurement, CONVERGED, Covariance::Tweedie);
        let mean = case.closed_form().0;
        let (right, _) = propagated_errors(case, &backend, &plan, &mut mmps, &mean);
        let (usual, _) = propagated_errors(case, &backend, &plan, &mut mmps, prior.mean());
        let delta = mean.iter().zip(prior.mean()).map(|(m, mu)| (m - mu).powi(2)).sum::<f64>().sqrt();
        println!("{case:?}: {right:?}, {usual:?}, {}", delta / plan.sigma_start);
        assert!(right.within(0.02), "{case:?}: {right:?}");
        assert!(usual.std < 0.02 && usual.mean < right.mean + delta / plan.sigma_start, "{case:?}: {usual:?}");
    }
}

/// The same with draws, in f32.
#[test]
fn draws_meet_the_closed_form() {
    const N: usize = 1024;
    let (cpu, prior) = (Cpu::new(Default::default()).unwrap(), prior());
    let (plan, run) = (plan(Sampler::TwoMSde, 64), Stream::new(7, Purpose::Step));
    let samples: Vec<u32> = (0..N as u32).collect();
    let solver = Solver { iterations: D, rtol: 1e-4, ..CONVERGED }; // what f32 can tell
    for case in CASES {
        let measurement = case.measurement(&cpu, case.operator(&cpu), N);
        let mut mmps = Mmps::new(&cpu, &prior, &measurement, solver, Covariance::Tweedie);
        let mean = cpu.upload(IMAGE, prior.mean());
        let x_1 = start(&cpu, &plan, Some(&mean), IMAGE.with_n(N), run, &samples);
        let draws = sample(&cpu, &mut mmps, &plan, x_1, run, &samples, &mut |_| ()).unwrap();
        assert!(draws.failures.is_empty(), "{case:?}");
        let x = cpu.to_vec(&draws.x_0).unwrap();
        let column = |i: usize| x.iter().skip(i).step_by(D);
        let mean: Vec<f64> = (0..D).map(|i| column(i).sum::<f64>() / N as f64).collect();
        let variance: Vec<f64> =
            (0..D).map(|i| column(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / (N - 1) as f64).collect();
        let errors = Errors::of(&mean, &variance, &case.closed_form());
        println!("{case:?}: {errors:?}");
        // 2%, and 4 standard errors of a mean, 1/√N, and of a std, 1/√2N: exceeded by chance once in 10⁴ for 16 of them
        let chance = 4.0 / (N as f64).sqrt();
        assert!(errors.mean < 0.02 + chance && errors.std < 0.02 + chance / 2f64.sqrt(), "{case:?}: {errors:?}");
    }
}
