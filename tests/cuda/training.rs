//! The ops of training, which belong to no network: on the host against PyTorch's formulas, and the CUDA kernels against the
//! reference.

use crate::harness::{Input, agree, device, schedules};
use diem::backend::cpu::Cpu;
use diem::backend::cuda::Dtype;
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::ops::adam::AdamStep;
use diem::ops::noise::{Purpose, Stream};
use diem::ops::{Adam, DenoisingLoss, Dropout, Ema, GlobalNorm};

/// A few roundings of 6e-8.
const F32: f64 = 1e-6;

/// A length that leaves a few elements beside accesses of 16 bytes.
const LENGTH: usize = 4 * 300 + 3;

#[test]
fn adam_takes_the_steps_of_pytorch() {
    // torch.optim.AdamW on p = [0.5, -1, 2], lr 0.1, weight_decay 0.01, after clip_grad_norm_(.., 1), for the gradients
    // [0.1, -0.2, 0.3], [1, 2, 3], in float64.
    let b = Reference::new();
    let mut p = b.upload(Shape::flat(3), &[0.5, -1.0, 2.0]);
    let (mut m, mut v) = (b.zeros(Shape::flat(3)), b.zeros(Shape::flat(3)));
    let expected = [
        [0.399500009999999, -0.8990000049999998, 1.8980000033333333],
        [0.3059303257714693, -0.9443289684078096, 1.8029318160337409],
    ];
    for (i, g) in [[0.1, -0.2, 0.3], [1.0, 2.0, 3.0]].iter().enumerate() {
        let g = b.upload(Shape::flat(3), g);
        let norm = b.global_norm(&[&g]);
        let s = AdamStep { weight_decay: 0.01, ..AdamStep::new(i as u32 + 1, 0.1) };
        b.adam_step(&s, &mut p, &mut m, &mut v, &g, &norm);
        for (p, expected) in p.iter().zip(expected[i]) {
            assert!((p - expected).abs() < 1e-12, "step {i}: {p}, PyTorch {expected}");
        }
    }
}

/// Three steps; the second gradient is ten times larger, and clipped.
fn steps<B: Adam + GlobalNorm>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let (mut p, mut m, mut v) = (b.copy(&x[0]), b.zeros(Shape::flat(LENGTH)), b.zeros(Shape::flat(LENGTH)));
    for (step, g) in (1..).zip(&x[1..4]) {
        let norm = b.global_norm(&[g]);
        let s = AdamStep { weight_decay: 0.02, max_norm: 40.0, ..AdamStep::new(step, 1e-2) };
        b.adam_step(&s, &mut p, &mut m, &mut v, g, &norm);
    }
    vec![p, m, v]
}

fn gradients() -> Vec<Input> {
    let input = |slot: usize, scale: f64| {
        let x = Input::f32(Shape::flat(LENGTH), slot);
        Input::new(x.shape, x.dtype, x.values.iter().map(|x| scale * x))
    };
    vec![input(0, 1.0), input(1, 0.5), input(2, 5.0), input(3, 1.0)]
}

#[test]
fn adam_on_every_backend() {
    agree(&gradients(), Dtype::F32, F32, steps, steps);
    let (reference, cpu) = (Reference::new(), Cpu::new(Default::default()).unwrap());
    let upload = |x: &Input| (reference.upload(x.shape, &x.values), cpu.upload(x.shape, &x.values));
    let (on_reference, on_cpu): (Vec<_>, Vec<_>) = gradients().iter().map(upload).unzip();
    for (expected, found) in steps(&reference, &on_reference).iter().zip(steps(&cpu, &on_cpu)) {
        let error = crate::harness::relative_error(&cpu.to_vec(&found).unwrap(), expected);
        assert!(error <= F32, "{error:e}");
    }
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    fn run<B: Adam + GlobalNorm>(b: &B) -> [Vec<f64>; 3] {
        let mut arrays = [1.0, 2.0, 3.0].map(|x| b.upload(Shape::flat(5), &[x; 5]));
        let g = b.upload(Shape::flat(5), &[1.0, f64::NAN, 0.0, f64::INFINITY, 1.0]);
        let norm = b.global_norm(&[&g]);
        let [p, m, v] = &mut arrays;
        b.adam_step(&AdamStep::new(1, 0.1), p, m, v, &g, &norm);
        arrays.map(|x| b.to_vec(&x).unwrap())
    }
    let unchanged = [1.0, 2.0, 3.0].map(|x| vec![x; 5]);
    assert_eq!(run(&Reference::new()), unchanged);
    schedules().for_each(|config| assert_eq!(run(&device(config, Dtype::F32)), unchanged));
}

#[test]
fn an_average_moves_towards_the_parameters_and_stays_there() {
    fn run<B: Ema>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let mut e = [b.copy(&x[0]), b.copy(&x[1])];
        e.iter_mut().for_each(|e| b.ema_update(e, &x[1], 0.9999));
        e.into()
    }
    let inputs = [0, 1].map(|slot| Input::f32(Shape::flat(LENGTH), slot));
    agree(&inputs, Dtype::F32, F32, run, run);
    let b = Reference::new();
    let x = inputs.map(|x| b.upload(x.shape, &x.values));
    let moved = run(&b, &x);
    assert_eq!(moved[1].to_vec(), x[1].to_vec());
}

#[test]
fn the_norm_of_arrays_of_many_lengths() {
    fn run<B: GlobalNorm>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let all: Vec<_> = x.iter().collect();
        vec![b.global_norm(&all), b.global_norm(&all[..1])]
    }
    // One element; less than a block; a whole one; several and a rest.
    let lengths = [1, LENGTH, 1 << 14, (1 << 14) + 5, 3 << 14].into_iter().enumerate();
    let inputs: Vec<_> = lengths.map(|(slot, len)| Input::f32(Shape::flat(len), slot)).collect();
    agree(&inputs, Dtype::F32, 1e-7, run, run); // f64 sums, rounded once
}

#[test]
fn loss_and_its_gradient() {
    const SIGMA: [f64; 3] = [1e-3, 0.7, 80.0];
    fn run<B: DenoisingLoss>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let (own, d_own) = b.denoising_loss(&x[0], &x[1], &SIGMA);
        let (shared, d_shared) = b.denoising_loss(&x[0], &x[1], &SIGMA[1..2]);
        vec![own, d_own, shared, d_shared]
    }
    for shape in [Shape::new(3, 7, 11, 5), Shape::new(3, 4, 6, 16), Shape::rows(3, 5)] {
        agree(&[0, 1].map(|slot| Input::f32(shape, slot)), Dtype::F32, F32, run, run);
    }
}

#[test]
fn the_gradient_of_the_loss_is_that_of_finite_differences() {
    let (b, s) = (Reference::new(), Shape::new(3, 2, 2, 3));
    let [d, x, u] = [0, 1, 2].map(|slot| Input::f32(s, slot).values);
    let sigma = [0.02, 1.0, 30.0];
    let mean = |t: f64| {
        let d: Vec<f64> = d.iter().zip(&u).map(|(d, u)| d + t * u).collect();
        b.denoising_loss(&b.upload(s, &d), &b.upload(s, &x), &sigma).0.iter().sum::<f64>() / 3.0
    };
    let dd = b.denoising_loss(&b.upload(s, &d), &b.upload(s, &x), &sigma).1;
    let slope: f64 = dd.iter().zip(&u).map(|(dd, u)| dd * u).sum();
    // The loss is quadratic: the central difference is exact up to rounding.
    let found = (mean(1e-3) - mean(-1e-3)) / 2e-3;
    assert!((found - slope).abs() < 1e-9 * slope.abs(), "{found} {slope}");
}

const STREAM: Stream = Stream { seed: 7, purpose: Purpose::Dropout, step: 3, correction: 2, iteration: 1, epoch: 5 };

#[test]
fn dropout_has_the_mask_of_the_reference() {
    fn run<B: Dropout>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let masked = |rate: f64| {
            let mut y = b.copy(&x[0]);
            b.dropout(&mut y, rate, STREAM, &[4, 0, 1_000_000]);
            y
        };
        vec![masked(0.1), masked(0.0), masked(0.75)]
    }
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, 4e-3)] {
        for shape in [Shape::new(3, 7, 11, 5), Shape::new(3, 4, 6, 16)] {
            agree(&[Input::normal(shape, dtype, 0)], Dtype::F32, bound, run, run);
        }
    }
}

#[test]
fn dropout_keeps_the_mean_and_depends_on_the_sample_alone() {
    let (b, s) = (Reference::new(), Shape::new(2, 64, 64, 3));
    let masked = |s: Shape, samples: &[u32]| {
        let mut x = b.upload(s, &vec![1.0; s.len()]);
        b.dropout(&mut x, 0.1, STREAM, samples);
        x.to_vec()
    };
    let both = masked(s, &[8, 9]);
    assert_eq!(both[s.row()..], masked(s.with_n(1), &[9]));
    assert_ne!(both[s.row()..], both[..s.row()]);
    let kept = both.iter().filter(|x| **x != 0.0).count() as f64 / s.len() as f64;
    // A standard deviation is √(0.09/24576) = 0.002.
    assert!((kept - 0.9).abs() < 0.01, "{kept}");
    assert!(both.iter().all(|x| *x == 0.0 || *x == 1.0 / 0.9));
}
