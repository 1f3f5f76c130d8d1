//! The convolution's products by wgmma (sm_90a) against the reference, and against those by mma.sync.

use crate::harness::{Input, Place, agree_on, device, hopper, relative_error, schedules, skip};
use diem::backend::cuda::{Cuda, Dtype};
use diem::backend::{Array, Backend, Keep, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::conv2d::Conv2dSpec;
use diem::ops::res_block::ResBlockWeights;
use diem::ops::{Conv2d, Linear, Ops};

/// As for mma.sync: each array that is stored is rounded by 2^-9 at most and 1.7e-3 on average, and so are sums of taps.
const BF16: f64 = 1e-2;

/// The devices that have wgmma, under every schedule.
fn hoppers() -> impl Iterator<Item = (Place, Cuda)> {
    if hopper(Place::default()).is_none() {
        skip("this GPU has no wgmma");
    }
    schedules().filter_map(|place| Some((place, hopper(place)?)))
}

fn bf16(shape: Shape, slot: usize) -> Input {
    Input::normal(shape, Dtype::Bf16, slot)
}

/// f32 weights of a layer with `fan_in` products per output, with elements that bf16 has.
fn weights(len: usize, fan_in: usize, slot: usize) -> Input {
    let normal = Input::f32(Shape::flat(len), slot);
    let scale = 1.0 / (fan_in as f64).sqrt();
    let rounded = Input::new(normal.shape, Dtype::Bf16, normal.values.iter().map(|w| w * scale));
    Input { dtype: Dtype::F32, ..rounded }
}

/// 72 to 80 channels: neither a step of K nor a tile is full.
const C: [usize; 2] = [72, 80];

/// x, w, b, dy of a 3x3 convolution, and w of a linear layer.
fn layer_inputs(x: Shape, stride: usize) -> Vec<Input> {
    let y = Conv2dSpec { c_in: x.c, c_out: C[1], stride }.output(x);
    let b = Input::f32(Shape::flat(C[1]), 2);
    vec![bf16(x, 0), weights(9 * x.c * C[1], 9 * x.c, 1), b, bf16(y, 3), weights(x.c * C[1], x.c, 4)]
}

/// Values and input gradients of both.
fn layers<B: Conv2d + Linear>(b: &B, stride: usize, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let [x, w, bias, dy, w_linear] = x else { unreachable!("five inputs") };
    let spec = Conv2dSpec { c_in: x.shape().c, c_out: C[1], stride };
    let k = b.conv2d(spec, w, bias, x.shape(), true);
    let linear = b.linear(spec.c_in, spec.c_out, w_linear, Some(bias));
    let values = [b.conv2d_forward(&k, x), b.conv2d_vjp(&k, x.shape(), dy)];
    values.into_iter().chain([b.linear_forward(&linear, x), b.linear_vjp(&linear, dy)]).collect()
}

/// In boxes of two images, which the taps of a column share where the stride is 1.
#[test]
fn convolutions_and_linear_layers() {
    for (stride, [n, h, w]) in [(1, [3, 7, 8]), (2, [2, 9, 8])] {
        let inputs = layer_inputs(Shape::new(n, h, w, C[0]), stride);
        agree_on(hoppers(), &inputs, BF16, |b, x| layers(b, stride, x), |b, x| layers(b, stride, x));
    }
}

/// A residual block, then a merge of its output with a skip: every epilogue, and the gradients of both.
fn blocks<B: Ops>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let [x, dy, w1, w2, bias, abc, skip, dout, w3] = x else { unreachable!("nine inputs") };
    let s = x.shape();
    let spec = Conv2dSpec { c_in: s.c, c_out: s.c, stride: 1 };
    let conv = |w| b.conv2d(spec, w, bias, s, true);
    let k = ResBlockWeights { conv1: &conv(w1), conv2: &conv(w2) };
    let m = Modulation { abc: b.copy(abc), gates: b.gates(abc) };
    let (y, saved) = b.res_block_forward(&k, &m, x, Keep::Input);
    let dx = b.res_block_vjp(&k, &m, &saved.expect("the forward kept its input's part"), dy, None);
    let merged = Conv2dSpec { c_in: 2 * s.c, ..spec };
    let k = b.merge(merged, s.c, w3, bias, skip.shape().with_c(2 * s.c), true);
    let (dup, dskip) = b.merge_vjp(&k, s.c, s.c, dout);
    vec![b.merge_forward(&k, x, skip), dup, dskip, y, dx]
}

#[test]
fn residual_blocks_and_merges() {
    let (s, c) = (Shape::new(1, 5, 6, C[0]), C[0]);
    let full = Shape::new(1, 10, 12, c);
    let w = |slot| weights(9 * c * c, 9 * c, slot);
    let w3 = weights(18 * c * c, 18 * c, 8);
    let abc = Input::f32(Shape::new(1, 1, 1, 3 * c), 5);
    let inputs =
        [bf16(s, 0), bf16(s, 1), w(2), w(3), Input::f32(Shape::flat(c), 4), abc, bf16(full, 6), bf16(full, 7), w3];
    agree_on(hoppers(), &inputs, BF16, blocks, blocks);
}

/// Odd batches in boxes of 2 and 4 images of 8 x 8 pixels, where images have 7 x 7: 18 tiles of 128 pixels and 8 of 256 for 4
/// blocks, each of which goes round its ring of stages more than once, and on to its next tile in the middle of it.
#[test]
fn blocks_go_on_to_their_next_tiles() {
    fn values<B: Linear>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let [x, w, bias] = x else { unreachable!("three inputs") };
        let c = x.shape().c;
        vec![b.linear_forward(&b.linear(c, c, w, Some(bias)), x)]
    }
    for n in [17, 15] {
        let x = Shape::new(n, 7, 7, 136);
        let inputs = [bf16(x, 0), weights(x.c * x.c, x.c, 1), Input::f32(Shape::flat(x.c), 2)];
        agree_on(hoppers(), &inputs, BF16, values, values);
    }
}

/// A batch of 1 takes tiles of 128 pixels, one of 15 tiles of 256: equal bits; and mma.sync differs by the order of its sums,
/// hence by one rounding to bf16 here and there.
#[test]
fn bits_depend_neither_on_the_batch_nor_much_on_the_instruction() {
    let x = Shape::new(15, 7, 7, C[0]);
    let inputs = layer_inputs(x, 1);
    let values = |device: &Cuda, n: usize| -> Vec<Vec<f64>> {
        let upload = |(i, input): (usize, &Input)| {
            let shape = if i == 0 || i == 3 { input.shape.with_n(n) } else { input.shape };
            device.upload_as(shape, &input.values[..shape.len()], input.dtype)
        };
        let x: Vec<_> = inputs.iter().enumerate().map(upload).collect();
        layers(device, 1, &x).iter().map(|y| device.to_vec(y).expect("no failure")).collect()
    };
    let Some(by_wgmma) = hopper(Place::default()) else { return skip("this GPU has no wgmma") };
    let by_mma = device(Place::default(), Dtype::Bf16);
    let all = values(&by_wgmma, x.n);
    for (alone, all) in values(&by_wgmma, 1).iter().zip(&all) {
        assert!(alone[..] == all[..alone.len()], "batch of 1 against {}", x.n);
    }
    let errors: Vec<f64> =
        all.iter().zip(values(&by_mma, x.n)).map(|(found, expected)| relative_error(found, &expected)).collect();
    assert!(errors.iter().all(|&error| error <= 1e-3), "wgmma against mma.sync: {errors:?}");
    assert!(errors[0] > 0.0, "the convolution was made by the same kernel");
}
