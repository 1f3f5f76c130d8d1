//! Norm and gated residual of the CUDA kernels against the reference: rows held in registers and rows read again, with
//! and without 16-byte accesses.

use crate::harness::{Input, agree, same_bits_alone};
use diem::backend::cuda::{Cuda, CudaTensor, Dtype};
use diem::backend::{Array, Backend, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::{ChannelNorm, GatedResidual, Vector};

/// Sums of at most 1,032 terms, each rounded at 6e-8, of random sign.
const F32: f64 = 2e-6;
/// One rounding to bf16, at most 2^-8 of each element; statistics are f32.
const BF16: f64 = 4e-3;
const TYPES: [(Dtype, f64); 2] = [(Dtype::F32, F32), (Dtype::Bf16, BF16)];

/// Every way to share a row: some lanes of a warp, all of them; 1, 2, 3, 4 or more accesses of 16 bytes per lane, in bf16
/// or f32; and single elements.
const CHANNELS: [usize; 12] = [1, 3, 8, 17, 40, 128, 264, 384, 512, 520, 1024, 1032];

/// Three samples: more pixels than a block has groups where rows are short.
fn shape(c: usize) -> Shape {
    if c < 200 { Shape::new(3, 3, 5, c) } else { Shape::new(3, 1, 2, c) }
}

fn modulation<B: GatedResidual>(b: &B, abc: &B::Tensor) -> Modulation<B> {
    Modulation { abc: b.copy(abc), gates: b.gates(abc) }
}

/// 1/√(var + ε) of some variance.
fn rstd(s: Shape) -> Input {
    Input::new(s.with_c(1), Dtype::F32, Input::f32(s.with_c(1), 8).values.iter().map(|z| (0.3 * z).exp()))
}

/// x, then a modulation with one row for all samples, then one with a row for each.
fn modulated(s: Shape, dtype: Dtype) -> Vec<Input> {
    let abc = |rows, slot| Input::f32(Shape::rows(rows, 3 * s.c), slot);
    vec![Input::normal(s, dtype, 0), abc(1, 1), abc(s.n, 2)]
}

#[test]
fn forward() {
    fn run<B: ChannelNorm + GatedResidual>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let plain = b.channel_norm_forward(&x[0], None);
        let modulated = x[1..].iter().map(|abc| b.channel_norm_forward(&x[0], Some(&modulation(b, abc))));
        [plain].into_iter().chain(modulated).flat_map(|(y, rstd)| [y, rstd]).collect()
    }
    for (dtype, bound) in TYPES {
        for c in CHANNELS {
            let inputs = modulated(shape(c), dtype);
            agree(&inputs, Dtype::F32, bound, run, run);
            same_bits_alone(&inputs, run);
        }
    }
}

#[test]
fn a_mean_far_from_zero_costs_no_digits() {
    // The variance is that of deviations: E[x^2] - E[x]^2 would lose six of seven digits here.
    fn run<B: ChannelNorm>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let (y, rstd) = b.channel_norm_forward(&x[0], None);
        vec![y, rstd]
    }
    let s = shape(40);
    let x = Input::new(s, Dtype::F32, Input::f32(s, 0).values.iter().map(|x| x + 1e3));
    // The mean of numbers near 1000 is rounded at 3e-5, which shifts each y by as much.
    agree(&[x], Dtype::F32, 1e-4, run, run);
}

#[test]
fn vjp() {
    fn run<B: ChannelNorm + GatedResidual>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [y, abc, abc_each, rstd, dy] = x else { unreachable!("five inputs") };
        let modulated = [abc, abc_each].map(|abc| b.channel_norm_vjp(y, rstd, Some(&modulation(b, abc)), dy));
        [b.channel_norm_vjp(y, rstd, None, dy)].into_iter().chain(modulated).collect()
    }
    for (dtype, bound) in TYPES {
        for s in CHANNELS.map(shape) {
            let mut inputs = modulated(s, dtype);
            inputs.extend([rstd(s), Input::normal(s, dtype, 4)]);
            agree(&inputs, Dtype::F32, bound, run, run);
            same_bits_alone(&inputs, run);
        }
    }
}

#[test]
fn vjp_with_the_residual_path() {
    fn reference<B: ChannelNorm + GatedResidual + Vector>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [y, abc, abc_each, rstd, dy, dout] = x else { unreachable!("six inputs") };
        let sum = |abc| {
            let m = modulation(b, abc);
            let mut dx = b.channel_norm_vjp(y, rstd, Some(&m), dy);
            b.add_assign(&mut dx, &b.gated_residual_vjp(&m, dout).0);
            dx
        };
        [abc, abc_each].map(sum).into()
    }
    fn cuda(b: &Cuda, x: &[CudaTensor]) -> Vec<CudaTensor> {
        let [y, abc, abc_each, rstd, dy, dout] = x else { unreachable!("six inputs") };
        [abc, abc_each].map(|abc| b.channel_norm_vjp_add(y, rstd, &modulation(b, abc), dy, dout)).into()
    }
    for (dtype, bound) in TYPES {
        for s in CHANNELS.map(shape) {
            let mut inputs = modulated(s, dtype);
            inputs.extend([rstd(s), Input::normal(s, dtype, 4), Input::normal(s, dtype, 5)]);
            agree(&inputs, Dtype::F32, bound, reference, cuda);
            same_bits_alone(&inputs, cuda);
        }
    }
}

#[test]
fn gated_residual() {
    fn run<B: GatedResidual>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [x, abc, abc_each, branch, dy] = x else { unreachable!("five inputs") };
        let all = |abc| {
            let m = modulation(b, abc);
            let (dx, dbranch) = b.gated_residual_vjp(&m, dy);
            [b.gated_residual_forward(x, branch, &m), dx, dbranch]
        };
        [abc, abc_each].into_iter().flat_map(all).collect()
    }
    for (dtype, bound) in TYPES {
        for s in [3, 17, 40, 128].map(shape) {
            let mut inputs = modulated(s, dtype);
            inputs.extend([3, 4].map(|slot| Input::normal(s, dtype, slot)));
            agree(&inputs, Dtype::F32, bound, run, run);
            same_bits_alone(&inputs, run);
        }
    }
}

#[test]
fn the_gradient_of_the_branch_alone() {
    for (dtype, bound) in TYPES {
        let s = shape(40);
        let inputs = [Input::f32(Shape::rows(3, 3 * s.c), 0), Input::normal(s, dtype, 1)];
        let reference = |b: &_, x: &[_]| vec![GatedResidual::gated_residual_vjp(b, &modulation(b, &x[0]), &x[1]).1];
        agree(&inputs, Dtype::F32, bound, reference, |b, x| {
            vec![b.gated_residual_vjp_branch(&modulation(b, &x[0]), &x[1])]
        });
    }
}

#[test]
fn parameter_gradients_add_up() {
    fn run<B: ChannelNorm + GatedResidual>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [x, abc, abc_each, rstd, y, branch, dy] = x else { unreachable!("seven inputs") };
        let gradients = |abc| {
            let mut dabc = b.copy(abc); // what is there already
            b.channel_norm_vjp_params(x, y, rstd, dy, &mut dabc);
            b.gated_residual_vjp_params(x, branch, &modulation(b, abc), dy, &mut dabc);
            dabc
        };
        [abc, abc_each].map(gradients).into()
    }
    // Blocks sum 64 pixels each: one block, two of them, more columns than threads, fewer.
    let shapes = [(5, 7, 3), (9, 13, 40), (5, 13, 17), (1, 3, 264), (1, 2, 2056), (1, 2, 261)];
    for (h, w, c) in shapes {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            let s = Shape::new(3, h, w, c);
            let mut inputs = modulated(s, dtype);
            inputs.extend([rstd(s)].into_iter().chain([4, 5, 6].map(|slot| Input::normal(s, dtype, slot))));
            // Elements are exact in both types, and sums are f32.
            agree(&inputs, Dtype::F32, F32, run, run);
            same_bits_alone(&inputs[..], |b, x| run(b, x).split_off(1));
        }
    }
}

#[test]
fn an_empty_batch_is_nothing_to_do() {
    let b = crate::harness::device(Default::default(), Dtype::F32);
    let x = b.alloc(Shape::new(0, 4, 4, 8));
    let (y, rstd) = b.channel_norm_forward(&x, None);
    assert_eq!((y.shape().n, rstd.shape().n), (0, 0));
    b.finish().unwrap();
}
