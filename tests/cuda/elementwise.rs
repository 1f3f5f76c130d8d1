//! SiLU, upsampling, concatenation, patches and noise embedding of the CUDA kernels against the reference.

use crate::harness::{Input, agree, device, schedules};
use diem::backend::cuda::{Cuda, CudaTensor, Dtype};
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::ops::{Concat, NoiseEmbedding, Patch, Silu, Upsample};

/// A few roundings of 6e-8, and those of the device's exponential.
const F32: f64 = 1e-6;
/// One rounding to bf16: at most 2^-8 of each element.
const BF16: f64 = 4e-3;
const TYPES: [(Dtype, f64); 2] = [(Dtype::F32, F32), (Dtype::Bf16, BF16)];

#[test]
fn silu() {
    fn run<B: Silu>(b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let (y, derivative) = b.silu_forward(&x[0], Keep::Input);
        let (alone, none) = b.silu_forward(&x[0], Keep::Nothing);
        assert!(none.is_none());
        vec![y, alone, derivative.expect("kept"), b.silu_vjp(&x[1], &x[2])]
    }
    for (dtype, bound) in TYPES {
        // 2,310 and 3 elements, which leave some beside accesses of 16 bytes, and 512, which do not.
        for s in [Shape::new(3, 7, 11, 10), Shape::flat(3), Shape::new(2, 4, 4, 16)] {
            let x = Input::normal(s, dtype, 0);
            let x = Input::new(s, dtype, x.values.iter().map(|x| 4.0 * x));
            agree(&[x, Input::normal(s, dtype, 1), Input::normal(s, dtype, 2)], Dtype::F32, bound, run, run);
        }
    }
}

#[test]
fn silu_of_large_numbers_is_finite() {
    let x = [-3e38, -200.0, -88.5, -87.0, 0.0, 90.0, 3e38];
    let b = device(Default::default(), Dtype::F32);
    let (y, derivative) = b.silu_forward(&b.upload(Shape::flat(x.len()), &x), Keep::Input);
    let (y, derivative) = (b.to_vec(&y).unwrap(), b.to_vec(&derivative.unwrap()).unwrap());
    for i in 0..x.len() {
        let (value, slope) =
            if x[i] > 0.0 { (f64::from(x[i] as f32), 1.0) } else { (0.0, if x[i] == 0.0 { 0.5 } else { 0.0 }) };
        assert!(
            (y[i] - value).abs() <= 1e-30 + 1e-6 * value && (derivative[i] - slope).abs() < 1e-30,
            "silu({})",
            x[i]
        );
    }
}

/// Channels whose runs are made of 16, 8, 4 and 2 bytes.
const CHANNELS: [usize; 5] = [16, 4, 2, 3, 1];

/// Copies have the bits of what they copy.
fn exact<const K: usize>(
    inputs: &[Input],
    reference: impl Fn(&Reference, &[HostTensor<f64>]) -> [HostTensor<f64>; K],
    cuda: impl Fn(&Cuda, &[CudaTensor]) -> [CudaTensor; K],
) {
    agree(inputs, Dtype::F32, 0.0, |b, x| reference(b, x).into(), |b, x| cuda(b, x).into());
}

#[test]
fn upsampling() {
    fn forward<B: Upsample>(b: &B, x: &[B::Tensor]) -> [B::Tensor; 1] {
        [b.upsample_forward(&x[0])]
    }
    fn vjp<B: Upsample>(b: &B, dy: &[B::Tensor]) -> Vec<B::Tensor> {
        vec![b.upsample_vjp(&dy[0])]
    }
    for (dtype, bound) in TYPES {
        for c in CHANNELS {
            exact(&[Input::normal(Shape::new(3, 5, 7, c), dtype, 0)], forward, forward);
            agree(&[Input::normal(Shape::new(3, 10, 14, c), dtype, 1)], Dtype::F32, bound, vjp, vjp);
        }
    }
}

#[test]
fn concatenation() {
    fn run<B: Concat>(b: &B, x: &[B::Tensor]) -> [B::Tensor; 3] {
        let (dx1, dx2) = b.concat_vjp(&x[2], Array::shape(&x[0]).c);
        [b.concat_forward(&x[0], &x[1]), dx1, dx2]
    }
    for (dtype, _) in TYPES {
        for (c1, c2) in [(16, 32), (8, 3), (3, 8), (2, 4), (5, 64), (4, 4)] {
            let inputs = [c1, c2, c1 + c2].into_iter().enumerate();
            let inputs: Vec<_> = inputs.map(|(slot, c)| Input::normal(Shape::new(3, 5, 7, c), dtype, slot)).collect();
            exact(&inputs, run, run);
        }
    }
}

#[test]
fn concatenation_rounds_an_f32_part_to_the_type_of_the_first() {
    let (x1, x2) = (Input::normal(Shape::rows(5, 3), Dtype::Bf16, 0), Input::f32(Shape::rows(5, 8), 1));
    let run = |b: &_, x: &[_]| vec![Concat::concat_forward(b, &x[0], &x[1])];
    let error = agree(&[x1, x2], Dtype::Bf16, BF16, run, |b, x| vec![b.concat_forward(&x[0], &x[1])]);
    assert!(error > 0.0);
}

#[test]
fn patches() {
    fn run<B: Patch>(b: &B, x: &[B::Tensor], patch: usize) -> [B::Tensor; 2] {
        [b.patch_fold(&x[0], patch), b.patch_unfold(&x[1], patch)]
    }
    for (dtype, _) in TYPES {
        for c in CHANNELS {
            for patch in [1, 2, 3, 4] {
                let (x, y) = (Shape::new(3, 5 * patch, 7 * patch, c), Shape::new(3, 5, 7, c * patch * patch));
                let inputs = [Input::normal(x, dtype, 0), Input::normal(y, dtype, 1)];
                exact(&inputs, |b, x| run(b, x, patch), |b, x| run(b, x, patch));
            }
        }
    }
}

#[test]
fn noise_embedding() {
    fn run<B: NoiseEmbedding>(b: &B, _: &[B::Tensor]) -> Vec<B::Tensor> {
        // ln sigma of the range of schedules, where an f32 is off by up to 3e-7: so are the highest angles
        let levels = [1e-3f64, 0.02, 1.0, 7.3, 100.0].map(f64::ln);
        [2, 6, 64, 258]
            .into_iter()
            .flat_map(|f| [b.noise_embedding_forward(&levels, f), b.noise_embedding_forward(&levels[3..4], f)])
            .collect()
    }
    agree(&[], Dtype::F32, F32, run, run);
}

#[test]
fn the_gradient_of_the_noise_level() {
    let levels = [-6.0, 0.5, 4.1];
    let de = Input::f32(Shape::rows(3, 10), 0);
    let reference = Reference::new();
    let expected = reference.noise_embedding_vjp(&levels, &reference.upload(de.shape, &de.values)).unwrap();
    for config in schedules() {
        let b = device(config, Dtype::F32);
        let found = b.noise_embedding_vjp(&levels, &b.upload(de.shape, &de.values)).unwrap();
        assert_eq!(found, expected, "the same host code on the same numbers");
    }
}
