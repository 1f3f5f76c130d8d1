//! The residual block and the decoder's merge of the CUDA kernels against the reference.

use crate::harness::{Input, Place, agree, device};
use diem::backend::cuda::{CudaTensor, Dtype};
use diem::backend::{Array, Backend, Keep, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::conv2d::Conv2dSpec;
use diem::ops::res_block::{ResBlockGrads, ResBlockWeights};
use diem::ops::{Merge, ResBlock};

/// A chain of five ops in f32, each with an error of at most 1e-5 of random sign.
const F32: f64 = 2.2e-5;
/// As many in bf16: each rounds what it stores, by 2^-9 at most and 1.7e-3 on average, and sums of taps are rounded again.
const BF16: f64 = 1e-2;
const TYPES: [(Dtype, f64); 2] = [(Dtype::F32, F32), (Dtype::Bf16, BF16)];

/// Weights of a layer with `fan_in` products per output, f32 with elements that `dtype` has.
fn weights(len: usize, fan_in: usize, dtype: Dtype, slot: usize) -> Input {
    let normal = Input::normal(Shape::flat(len), Dtype::F32, slot);
    let scale = 1.0 / (fan_in as f64).sqrt();
    let rounded = Input::new(normal.shape, dtype, normal.values.iter().map(|w| w * scale));
    Input { dtype: Dtype::F32, ..rounded }
}

/// Of a residual block at `x` with `rows` noise levels: x, dy, w1, b1, w2, b2, abc.
fn block_inputs(x: Shape, rows: usize, dtype: Dtype) -> Vec<Input> {
    let (c, len) = (x.c, 9 * x.c * x.c);
    vec![
        Input::normal(x, dtype, 0),
        Input::normal(x, dtype, 1),
        weights(len, 9 * c, dtype, 2),
        Input::f32(Shape::flat(c), 3),
        weights(len, 9 * c, dtype, 4),
        Input::f32(Shape::flat(c), 5),
        Input::f32(Shape::new(rows, 1, 1, 3 * c), 6),
    ]
}

/// The output, dx, and with `keep` All the gradients of all parameters.
fn block<B: ResBlock>(b: &B, keep: Keep, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let [x, dy, w1, b1, w2, b2, abc] = x else { unreachable!("seven inputs") };
    let spec = Conv2dSpec { c_in: x.shape().c, c_out: x.shape().c, stride: 1 };
    let conv = |w, bias| b.conv2d(spec, w, bias, x.shape(), true);
    let k = ResBlockWeights { conv1: &conv(w1, b1), conv2: &conv(w2, b2) };
    let m = Modulation { abc: b.copy(abc), gates: b.gates(abc) };
    let (y, saved) = b.res_block_forward(&k, &m, x, keep);
    let Some(saved) = saved else { return vec![y] };
    if keep != Keep::All {
        let dx = b.res_block_vjp(&k, &m, &saved, dy, None);
        return vec![y, dx];
    }
    let mut d = [w1, b1, w2, b2, abc].map(|w| b.zeros(w.shape()));
    let [dw1, db1, dw2, db2, dabc] = &mut d;
    let dx = b.res_block_vjp(&k, &m, &saved, dy, Some(ResBlockGrads { x, dw1, db1, dw2, db2, dabc }));
    [y, dx].into_iter().chain(d).collect()
}

#[test]
fn residual_blocks() {
    for (dtype, bound) in TYPES {
        for (x, rows, keep) in [
            (Shape::new(2, 5, 7, 16), 1, Keep::Nothing),
            (Shape::new(2, 5, 7, 16), 1, Keep::Input), // gates for all: they scale the weights
            (Shape::new(3, 3, 5, 40), 3, Keep::Input),
            (Shape::new(3, 3, 5, 40), 3, Keep::All),
            (Shape::new(2, 4, 3, 19), 1, Keep::Input), // channels are gathered
        ] {
            let inputs = block_inputs(x, rows, dtype);
            let error = agree(&inputs, dtype, bound, |b, x| block(b, keep, x), |b, x| block(b, keep, x));
            eprintln!("{dtype:?} {x:?}, {rows} noise levels, {keep:?}: {error:.1e}");
        }
    }
}

/// Of a merge of `x` with `c2` channels: x, skip, dy, w, b.
fn merge_inputs(x: Shape, c2: usize, c_out: usize, dtype: Dtype) -> Vec<Input> {
    let full = Shape::new(x.n, 2 * x.h, 2 * x.w, c2);
    let fan_in = 9 * (x.c + c2);
    vec![
        Input::normal(x, dtype, 0),
        Input::normal(full, dtype, 1),
        Input::normal(full.with_c(c_out), dtype, 2),
        weights(fan_in * c_out, fan_in, dtype, 3),
        Input::f32(Shape::flat(c_out), 4),
    ]
}

/// The output, dx, dskip, and the gradients of the parameters.
fn merge<B: Merge>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let [x, skip, dy, w, bias] = x else { unreachable!("five inputs") };
    let (c1, c2) = (x.shape().c, skip.shape().c);
    let spec = Conv2dSpec { c_in: c1 + c2, c_out: dy.shape().c, stride: 1 };
    let k = b.merge(spec, c1, w, bias, skip.shape().with_c(c1 + c2), true);
    let (dx, dskip) = b.merge_vjp(&k, c1, c2, dy);
    let (mut dw, mut db) = (b.zeros(w.shape()), b.zeros(bias.shape()));
    b.merge_vjp_params(&k, x, skip, dy, &mut dw, &mut db);
    vec![b.merge_forward(&k, x, skip), dx, dskip, dw, db]
}

#[test]
fn merges() {
    for (dtype, bound) in TYPES {
        for (x, c2, c_out) in [
            (Shape::new(2, 3, 5, 16), 24, 40),
            (Shape::new(1, 1, 1, 8), 8, 3),
            (Shape::new(3, 4, 1, 3), 5, 7), // no whole chunks of 16 bytes: copied
        ] {
            let inputs = merge_inputs(x, c2, c_out, dtype);
            let error = agree(&inputs, dtype, bound, merge, merge);
            eprintln!("{dtype:?} {x:?} and {c2} channels to {c_out}: {error:.1e}");
        }
    }
}

/// Values and input gradients of a sample alone and in a batch of 3, on tiles that differ.
#[test]
fn bits_do_not_depend_on_the_batch() {
    for (dtype, _) in TYPES {
        let device = device(Place::default(), dtype);
        let upload = |inputs: &[Input], batched: usize, n: usize| -> Vec<CudaTensor> {
            let shape = |i: usize, s: Shape| if i < batched { s.with_n(n) } else { s };
            let upload = |(i, input): (usize, &Input)| {
                let shape = shape(i, input.shape);
                device.upload_as(shape, &input.values[..shape.len()], input.dtype)
            };
            inputs.iter().enumerate().map(upload).collect()
        };
        let bits =
            |y: &[CudaTensor]| -> Vec<Vec<f64>> { y.iter().map(|y| device.to_vec(y).expect("no failure")).collect() };
        let inputs = block_inputs(Shape::new(3, 9, 9, 72), 1, dtype);
        let [alone, batch] = [1, 3].map(|n| bits(&block(&device, Keep::Input, &upload(&inputs, 2, n))));
        for (alone, batch) in alone.iter().zip(&batch) {
            assert!(alone[..] == batch[..alone.len()], "{dtype:?}: residual block");
        }
        let inputs = merge_inputs(Shape::new(3, 5, 5, 16), 24, 72, dtype);
        let [alone, batch] = [1, 3].map(|n| bits(&merge(&device, &upload(&inputs, 3, n))[..3]));
        for (alone, batch) in alone.iter().zip(&batch) {
            assert!(alone[..] == batch[..alone.len()], "{dtype:?}: merge");
        }
    }
}
