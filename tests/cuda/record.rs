//! The steps of a sampler as graphs: the bits of eager launches, nothing allocated, nobody waiting.

use crate::harness::{Place, counted};
use diem::Result;
use diem::backend::cpu::Cpu;
use diem::backend::cuda::driver::Counters;
use diem::backend::cuda::{Cuda, Dtype};
use diem::backend::{Backend, Shape};
use diem::diffusion::samplers::{Failure, Plan, Sampler, sample, start};
use diem::diffusion::schedule::Schedule;
use diem::diffusion::{Estimator, Gaussian};
use diem::operators::{Measurement, PixelMask};
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Dplr, KrylovOps, Mask, Noise, Vector};
use diem::posterior::solvers::Krylov;
use diem::posterior::{CovarianceKind, Method, Settings};

const IMAGE: Shape = Shape::new(3, 4, 5, 2);
const SAMPLES: [u32; 3] = [4, 5, 6];
const STEPS: usize = 7;
const SAMPLERS: [Sampler; 4] =
    [Sampler::Ddpm, Sampler::Ddim { eta: 0.0 }, Sampler::Pc { corrections: 1, delta: 0.1 }, Sampler::TwoMSde];

const MMPS: Settings = Settings {
    method: Method::Mmps,
    solver: Krylov::Cg,
    iterations: 2,
    rtol: 1e-3,
    covariance: CovarianceKind::Tweedie,
    prior_above: None,
    zeta: 1.0,
    lambda: 10.0,
};

fn device(record: bool) -> Cuda {
    counted(Place::default(), Dtype::F32, record)
}

fn stream() -> Stream {
    Stream::new(11, Purpose::Start)
}

fn plan(sampler: Sampler) -> Plan {
    sampler.plan(Schedule::new(1e-2, 1e1).unwrap(), STEPS).unwrap()
}

/// Draws with `estimator`: x_0, and the failures. `progress` is told as by [`sample`].
fn draw<B: Noise + Vector>(
    backend: &B,
    sampler: Sampler,
    estimator: &mut dyn Estimator<B>,
    progress: &mut dyn FnMut(usize),
) -> (Vec<f64>, Vec<Failure>) {
    let plan = plan(sampler);
    let x_1 = start(backend, &plan, None, IMAGE, stream(), &SAMPLES);
    let draws = sample(backend, estimator, &plan, x_1, stream(), &SAMPLES, progress).unwrap();
    (backend.to_vec(&draws.x_0).unwrap(), draws.failures)
}

/// Draws of the posterior under a Gaussian prior and a mask, and how the solves ended.
fn posterior<B>(
    backend: &B,
    sampler: Sampler,
    settings: Settings,
    progress: &mut dyn FnMut(usize),
) -> (Vec<f64>, Vec<u64>)
where
    B: KrylovOps + Dplr + Mask + Noise + Vector,
{
    let test = |shape: Shape, step| {
        backend.noise_normal(shape, Stream::new(2, Purpose::Test).at(step, 0), &[0, 1, 2][..shape.n])
    };
    let d = IMAGE.row();
    let mean = backend.to_vec(&test(Shape::rows(1, d), 0)).unwrap();
    let factor = backend.to_vec(&test(Shape::rows(1, 3 * d), 1)).unwrap();
    let gaussian = Gaussian::new(mean, vec![0.3; d], factor).unwrap();
    let mask: Vec<f64> = (0..IMAGE.pixels()).map(|i| f64::from(i % 3 == 0)).collect();
    let mask = backend.upload(IMAGE.with_n(1).with_c(1), &mask);
    let operator = Box::new(PixelMask::new(mask, IMAGE).unwrap());
    let measurement = Measurement::new(backend, &test(IMAGE, 2), &[0.05], operator).unwrap();
    let mut estimator = settings.estimator(backend, &gaussian, &measurement, Some(&gaussian), &plan(sampler)).unwrap();
    let (x_0, failures) = draw(backend, sampler, &mut *estimator, progress);
    assert_eq!(failures, []);
    assert!(x_0.iter().all(|x| x.is_finite()));
    (x_0, estimator.counts(backend).unwrap().converged)
}

#[test]
fn replayed_steps_have_the_bits_of_eager_ones() {
    let switched = Settings { prior_above: Some(0.5), ..MMPS }; // steps of two kinds
    for (sampler, settings) in SAMPLERS.into_iter().flat_map(|sampler| [(sampler, MMPS), (sampler, switched)]) {
        let (eager, recorded) = (device(false), device(true));
        let expected = posterior(&eager, sampler, settings, &mut |_| ());
        assert_eq!(posterior(&recorded, sampler, settings, &mut |_| ()), expected, "{sampler:?}");
        let updates = if matches!(sampler, Sampler::Pc { .. }) { 2 * STEPS } else { STEPS };
        assert_eq!(recorded.driver().counters().graphs, updates - 1, "{sampler:?}: all steps but the first");
        assert_eq!(eager.driver().counters().graphs, 0);
    }
}

#[test]
fn nothing_is_allocated_and_nobody_waits_inside_a_step() {
    let backend = device(true);
    let run = || {
        let mut counters = Vec::new();
        posterior(&backend, Sampler::TwoMSde, MMPS, &mut |_| counters.push(backend.driver().counters()));
        counters
    };
    let first = run();
    for pair in first[1..STEPS].windows(2) {
        assert_eq!(pair[1], Counters { graphs: pair[0].graphs + 1, ..pair[0] });
    }
    // the next batch finds its memory
    let second = run();
    assert_eq!(second[STEPS].allocations, first[STEPS].allocations);
}

#[test]
fn every_method_and_solver_is_replayed() {
    for settings in [
        Settings { solver: Krylov::Gmres, ..MMPS },
        Settings { solver: Krylov::Bicgstab, ..MMPS },
        Settings { method: Method::Dps, ..MMPS },
        Settings { method: Method::Pgdm, ..MMPS },
        Settings { method: Method::Tmpd, ..MMPS },
        Settings { method: Method::Diffpir, solver: Krylov::Gmres, ..MMPS },
    ] {
        let (eager, recorded) = (device(false), device(true));
        let expected = posterior(&eager, Sampler::Ddpm, settings, &mut |_| ());
        assert_eq!(posterior(&recorded, Sampler::Ddpm, settings, &mut |_| ()), expected, "{settings:?}");
        assert_eq!(recorded.driver().counters().graphs, STEPS - 1, "{settings:?}: all steps but the first");
    }
}

#[test]
fn a_step_that_reads_the_device_is_refused() {
    struct Reads;
    impl Estimator<Cuda> for Reads {
        fn estimate(
            &mut self,
            backend: &Cuda,
            x_t: &<Cuda as Backend>::Tensor,
            _: &[f64],
        ) -> Result<<Cuda as Backend>::Tensor> {
            backend.to_vec(x_t)?;
            Ok(backend.copy(x_t))
        }
    }
    let backend = device(true);
    let plan = Sampler::Ddpm.plan(Schedule::default(), STEPS).unwrap();
    let x_1 = start(&backend, &plan, None, IMAGE, stream(), &SAMPLES);
    let error = sample(&backend, &mut Reads, &plan, x_1, stream(), &SAMPLES, &mut |_| ()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("does not read the device"), "{error}");
}

/// Half of x_t; below σ = 1, sample 1 of the batch becomes infinite.
struct Breaking<B: Backend>(B::Tensor);

impl<B: Vector> Estimator<B> for Breaking<B> {
    fn estimate(&mut self, backend: &B, x_t: &B::Tensor, sigma: &[f64]) -> Result<B::Tensor> {
        let mut x_hat = backend.linear_combination(&[(0.5, x_t)]);
        let scale = if sigma[0] < 1.0 { f64::INFINITY } else { 0.0 };
        backend.row_axpy(&mut x_hat, scale, &self.0, x_t);
        Ok(x_hat)
    }
}

#[test]
fn a_sample_that_fails_is_noted_at_its_step() {
    fn run<B: Noise + Vector>(backend: &B) -> (Vec<f64>, Vec<Failure>) {
        let which = backend.upload(Shape::rows(3, 1), &[0.0, 1.0, 0.0]);
        draw(backend, Sampler::Ddpm, &mut Breaking::<B>(which), &mut |_| ())
    }
    let (x_0, failures) = run(&Cpu::new(Default::default()).unwrap());
    // σ is 10, 3.7, 1.4, 0.5: below 1 first in step 3
    assert_eq!(failures, [Failure { sample: 5, step: 3 }]);
    for record in [false, true] {
        let (found, found_failures) = run(&device(record));
        assert_eq!(found_failures, failures);
        for (i, (found, x_0)) in found.iter().zip(&x_0).enumerate() {
            // the weights are f32 on the device: a few roundings of 6e-8 in each of seven steps
            let error = (found - x_0).abs();
            assert!(if i / IMAGE.row() == 1 { found.is_nan() } else { error < 1e-5 }, "{i}: {found} {x_0}");
        }
    }
}
