//! A U-Net on the device: against the reference in both precisions, the bits of a sample, and posterior steps as
//! graphs.

use crate::harness::{Place, counted, relative_error};
use diem::backend::cuda::emulated::Config;
use diem::backend::cuda::{Cuda, Dtype};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Keep, Shape};
use diem::diffusion::denoiser::Preconditioned;
use diem::diffusion::samplers::{Sampler, sample, start};
use diem::diffusion::schedule::Schedule;
use diem::diffusion::{Denoiser, Tabulated};
use diem::nn::{UNet, UNetConfig};
use diem::operators::{Measurement, PixelMask};
use diem::ops::noise::{Purpose, Stream};
use diem::ops::precondition::Coefficients;
use diem::ops::{Noise, Ops};
use diem::posterior::solvers::{Krylov, Solver};
use diem::posterior::{Covariance, Mmps};

const IMAGE: Shape = Shape::new(3, 8, 8, 3);
const SIGMA: f64 = 0.7;
const STEPS: usize = 4;

fn device(precision: Dtype, record: bool) -> Cuda {
    counted(Place::or_emulated(Config { os_threads: 0, ..Config::default() }), precision, record)
}

/// Two levels, attention on the lower one, and weights of which none is zero.
fn denoiser<B: Ops>(backend: &B) -> Preconditioned<UNet<B>> {
    let config = UNetConfig {
        in_channels: 3,
        out_channels: 3,
        channels: vec![16, 32],
        blocks: vec![1, 1],
        heads: vec![0, 2],
        emb: 16,
        patch: 1,
    };
    let layout = config.layout();
    Preconditioned(UNet::new(backend, &config, (IMAGE.h, IMAGE.w), true, |id| {
        let spec = &layout[id];
        let fan_in: usize = spec.dims[1..].iter().product();
        let std = if spec.dims.len() == 1 { 0.3 } else { 1.0 / (fan_in as f64).sqrt() };
        let z = normal(&Reference::new(), Shape::flat(spec.len()), 100 + id.index());
        backend.upload(Shape::flat(spec.len()), &z.iter().map(|z| std * z).collect::<Vec<f64>>())
    }))
}

/// N(0, 1); row i is the same for any number of rows.
fn normal<B: Noise>(backend: &B, shape: Shape, slot: usize) -> B::Tensor {
    let samples: Vec<u32> = (0..shape.n as u32).collect();
    backend.noise_normal(shape, Stream::new(5, Purpose::Test).at(slot, 0), &samples)
}

/// The network's part of d and of Jᵀ u at x_t: what remains of them without what the preconditioning passes on.
fn value_and_vjp<B: Ops>(backend: &B, n: usize) -> [Vec<f64>; 2] {
    let denoiser = denoiser(backend);
    let [x_t, u] = [0, 1].map(|slot| normal(backend, IMAGE.with_n(n), slot));
    let condition = denoiser.condition(backend, &[SIGMA], Keep::Input);
    let (x_hat, saved) = denoiser.forward(backend, &x_t, &condition, Keep::Input);
    let g = denoiser.vjp(backend, &condition, &saved.unwrap(), &u);
    let c_skip = Coefficients::at(SIGMA).c_skip;
    [(x_hat, x_t), (g, u)]
        .map(|(y, x)| backend.to_vec(&backend.linear_combination(&[(1.0, &y), (-c_skip, &x)])).unwrap())
}

#[test]
fn value_and_vjp_agree_with_the_reference() {
    let expected = value_and_vjp(&Reference::new(), IMAGE.n);
    // DESIGN section 5: some twenty ops in a row, each with 1e-5 at most in f32; in bf16 each array is rounded by 2^-9
    for (precision, bound) in [(Dtype::F32, 1e-4), (Dtype::Bf16, 3e-2)] {
        let found = value_and_vjp(&device(precision, false), IMAGE.n);
        for (what, found, expected) in [("value", &found[0], &expected[0]), ("vjp", &found[1], &expected[1])] {
            let error = relative_error(found, expected);
            assert!(error < bound, "{what} in {precision:?}: {error:e}");
            println!("{what} in {precision:?}: {error:.1e}");
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    for precision in [Dtype::F32, Dtype::Bf16] {
        let backend = device(precision, false);
        let together = value_and_vjp(&backend, IMAGE.n);
        let alone = value_and_vjp(&backend, 1);
        for (together, alone) in together.iter().zip(&alone) {
            assert_eq!(together[..IMAGE.row()], alone[..], "{precision:?}");
        }
    }
}

/// Posterior draws by MMPS with two CG iterations; `progress` is told as by [`sample`]. Where the backend records, modulations
/// come from a table.
fn posterior(backend: &Cuda, sampler: Sampler, progress: &mut dyn FnMut(usize)) -> Vec<f64> {
    let plan = sampler.plan(Schedule::new(1e-2, 1e1).unwrap(), STEPS).unwrap();
    let network = denoiser(backend);
    let denoiser = Tabulated::new(backend, &network, &plan);
    let mask: Vec<f64> = (0..IMAGE.pixels()).map(|i| f64::from(i % 3 == 0)).collect();
    let mask = backend.upload(IMAGE.with_n(1).with_c(1), &mask);
    let operator = Box::new(PixelMask::new(mask, IMAGE).unwrap());
    let measurement = Measurement::new(backend, &normal(backend, IMAGE, 2), &[0.05], operator).unwrap();
    let solver = Solver { krylov: Krylov::Cg, iterations: 2, rtol: 1e-3 };
    let mut mmps = Mmps::new(backend, &denoiser, &measurement, solver, Covariance::Tweedie);
    let (run, samples) = (Stream::new(3, Purpose::Start), [7, 8, 9]);
    let x_1 = start(backend, &plan, None, IMAGE, run, &samples);
    let draws = sample(backend, &mut mmps, &plan, x_1, run, &samples, progress).unwrap();
    backend.to_vec(&draws.x_0).unwrap()
}

#[test]
fn replayed_posterior_steps_have_the_bits_of_eager_ones() {
    let (eager, recorded) = (device(Dtype::Bf16, false), device(Dtype::Bf16, true));
    let expected = posterior(&eager, Sampler::TwoMSde, &mut |_| ());
    let mut counters = Vec::new();
    let found = posterior(&recorded, Sampler::TwoMSde, &mut |_| counters.push(recorded.driver().counters()));
    assert!(expected.iter().all(|x| x.is_finite()));
    assert_eq!(found, expected);
    let (second, last) = (counters[1], counters[3]);
    assert_eq!(last.graphs - second.graphs, 2, "one graph for each step");
    assert_eq!(
        [last.allocations, last.synchronizations, last.launches],
        [second.allocations, second.synchronizations, second.launches],
        "nothing but graphs inside a step"
    );
}

/// A noise level that two steps share, as those of a corrector, is one row of the table.
#[test]
fn a_table_of_modulations_has_the_bits_of_those_computed_in_each_step() {
    for precision in [Dtype::F32, Dtype::Bf16] {
        let sampler = Sampler::Pc { corrections: 1, delta: 0.1 };
        let expected = posterior(&device(precision, false), sampler, &mut |_| ());
        assert!(expected.iter().all(|x| x.is_finite()));
        assert_eq!(posterior(&device(precision, true), sampler, &mut |_| ()), expected, "{precision:?}");
    }
}

#[test]
fn a_table_saves_four_launches_a_block() {
    let backend = device(Dtype::Bf16, true);
    let network = denoiser(&backend);
    let plan = Sampler::Ddpm.plan(Schedule::default(), STEPS).unwrap();
    let table = Tabulated::new(&backend, &network, &plan);
    let launches = |f: &dyn Fn()| {
        let before = backend.driver().counters().launches;
        f();
        backend.driver().counters().launches - before
    };
    let sigma = [plan.updates[2].sigma];
    let computed = launches(&|| drop(network.condition(&backend, &sigma, Keep::Input)));
    let picked = launches(&|| drop(table.condition(&backend, &sigma, Keep::Input)));
    // four residual and two attention blocks: an embedding, then two layers, SiLU and gates for each; the tests' pool poisons
    // every array by one more launch
    assert_eq!(computed, 2 * (1 + 6 * 4));
    assert_eq!(picked, 1 + 6 * 2);
    // at a noise level that it has not, the denoiser computes
    assert_eq!(launches(&|| drop(table.condition(&backend, &[0.123], Keep::Input))), computed);
}
