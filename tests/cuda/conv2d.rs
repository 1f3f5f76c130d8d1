//! Convolution and linear layers of the CUDA kernels against the reference.

use crate::harness::{Input, Place, agree, device};
use diem::backend::cuda::Dtype;
use diem::backend::{Array, Backend, Shape};
use diem::ops::conv2d::Conv2dSpec;
use diem::ops::{Conv2d, Linear};

/// One op in f32: sums of at most 1,224 products with rounding errors of 6e-8 each, of random sign, err by 2e-6.
const F32: f64 = 1e-5;
/// One rounding of the output to bf16, 2^-9 at most and 1.7e-3 on average where sums are f32; two more where taps are summed
/// before they are rounded.
const BF16: f64 = 1e-2;

fn bound(dtype: Dtype) -> f64 {
    if dtype == Dtype::F32 { F32 } else { BF16 }
}

/// x, w, b, dy of a layer with `fan_in` products per output.
fn inputs(x: Shape, y: Shape, fan_in: usize, dtype: Dtype) -> Vec<Input> {
    let scale = 1.0 / (fan_in as f64).sqrt();
    let w = Input::normal(Shape::flat(fan_in * y.c), Dtype::F32, 1);
    let w = Input::new(w.shape, dtype, w.values.iter().map(|w| w * scale));
    let w = Input { dtype: Dtype::F32, ..w };
    vec![Input::normal(x, dtype, 0), w, Input::f32(Shape::flat(y.c), 2), Input::normal(y, dtype, 3)]
}

fn convolution(dtype: Dtype, x: Shape, c_out: usize, stride: usize) {
    fn run<B: Conv2d>(b: &B, spec: Conv2dSpec, [x, w, bias, dy]: [&B::Tensor; 4]) -> Vec<B::Tensor> {
        let k = b.conv2d(spec, w, bias, x.shape(), true);
        let (y, dx) = (b.conv2d_forward(&k, x), b.conv2d_vjp(&k, x.shape(), dy));
        let (mut dw, mut db) = (b.copy(w), b.copy(bias)); // gradients are added to what is there
        b.conv2d_vjp_params(&k, x, dy, &mut dw, &mut db);
        vec![y, dx, dw, db]
    }
    let spec = Conv2dSpec { c_in: x.c, c_out, stride };
    let inputs = inputs(x, spec.output(x), 9 * x.c, dtype);
    let error = agree(
        &inputs,
        dtype,
        bound(dtype),
        |b, x| run(b, spec, [&x[0], &x[1], &x[2], &x[3]]),
        |b, x| run(b, spec, [&x[0], &x[1], &x[2], &x[3]]),
    );
    eprintln!("{dtype:?} {x:?} to {c_out}, stride {stride}: {error:.1e}");
}

const TYPES: [Dtype; 2] = [Dtype::F32, Dtype::Bf16];

/// Extents that no tile divides, and channels that no chunk of 16 bytes does.
#[test]
fn convolutions() {
    let s = Shape::new;
    for dtype in TYPES {
        convolution(dtype, s(2, 5, 7, 3), 24, 1); // the stem
        for stride in [1, 2] {
            convolution(dtype, s(1, 6, 5, 40), 3, stride); // few outputs; its gradient gathers
        }
        convolution(dtype, s(3, 9, 7, 16), 136, 2); // several blocks of channels and of pixels
        convolution(dtype, s(3, 13, 13, 24), 120, 1); // large tiles
    }
}

/// Batches of 1, 4 and 10 fill the emulated device's 4 multiprocessors with small, medium and large tiles.
#[test]
fn bits_do_not_depend_on_the_batch() {
    for dtype in TYPES {
        for stride in [1, 2] {
            let (x, spec) = (Shape::new(10, 7 * stride, 7 * stride, 16), Conv2dSpec { c_in: 16, c_out: 120, stride });
            let inputs = inputs(x, spec.output(x), 9 * x.c, dtype);
            let device = device(Place::default(), dtype);
            let bits = |n: usize| {
                let upload = |input: &Input, batch: bool| {
                    let shape = if batch { input.shape.with_n(n) } else { input.shape };
                    device.upload_as(shape, &input.values[..shape.len()], input.dtype)
                };
                let k = device.conv2d(spec, &upload(&inputs[1], false), &upload(&inputs[2], false), x, true);
                let y = device.conv2d_forward(&k, &upload(&inputs[0], true));
                let dx = device.conv2d_vjp(&k, x.with_n(n), &upload(&inputs[3], true));
                [y, dx].map(|y| device.to_vec(&y).expect("no failure"))
            };
            let all = bits(10);
            for n in [1, 4] {
                for (few, all) in bits(n).iter().zip(&all) {
                    assert!(few[..] == all[..few.len()], "{dtype:?}, stride {stride}: batch {n} against 10");
                }
            }
        }
    }
}

fn linear(dtype: Dtype, x: Shape, c_out: usize) {
    fn run<B: Linear>(b: &B, c_out: usize, [x, w, bias, dy]: [&B::Tensor; 4]) -> Vec<B::Tensor> {
        let k = b.linear(x.shape().c, c_out, w, Some(bias));
        let plain = b.linear(x.shape().c, c_out, w, None);
        let (mut dw, mut db) = (b.copy(w), b.copy(bias));
        b.linear_vjp_params(&k, x, dy, &mut dw, Some(&mut db));
        b.linear_vjp_params(&plain, x, dy, &mut dw, None);
        vec![b.linear_forward(&k, x), b.linear_forward(&plain, x), b.linear_vjp(&k, dy), dw, db]
    }
    let inputs = inputs(x, x.with_c(c_out), x.c, dtype);
    agree(
        &inputs,
        dtype,
        bound(dtype),
        |b, x| run(b, c_out, [&x[0], &x[1], &x[2], &x[3]]),
        |b, x| run(b, c_out, [&x[0], &x[1], &x[2], &x[3]]),
    );
}

#[test]
fn linear_layers() {
    let s = Shape::new;
    for dtype in TYPES {
        linear(dtype, s(3, 5, 7, 40), 136);
        linear(dtype, s(2, 1, 1, 16), 24);
        linear(dtype, s(1, 3, 3, 3), 19);
    }
}
