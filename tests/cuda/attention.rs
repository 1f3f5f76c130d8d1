//! The attention kernels against the reference.

use crate::harness::{Input, agree, device, schedules};
use diem::backend::cuda::Dtype;
use diem::backend::{Backend, Keep, Shape};
use diem::ops::Attention;

/// Sums of up to 300 products of rounding error 6e-8, of random sign: 1e-6, and exponentials whose argument is rounded.
const F32: f64 = 5e-6;
/// q, k and v are exact; o and dqkv are rounded (2e-3 of the norm, see vector.rs), and before the second product the
/// weights and their gradients too: three roundings of 2e-3 at most.
const BF16: f64 = 5e-3;

/// (o, dqkv) of qkv = `x[0]` and do = `x[1]`; the second VJP after one forward, as a solver's iterations have it.
fn run<B: Attention>(b: &B, heads: usize, x: &[B::Tensor]) -> Vec<B::Tensor> {
    let (o, saved) = b.attention_forward(b.copy(&x[0]), heads, Keep::Input);
    let saved = saved.expect("kept");
    b.attention_vjp(&saved, &o);
    vec![b.attention_vjp(&saved, &x[1]), o]
}

fn check(o: Shape, heads: usize, dtype: Dtype) {
    let inputs = [Input::normal(o.with_c(3 * o.c), dtype, 0), Input::normal(o, dtype, 1)];
    let bound = if dtype == Dtype::F32 { F32 } else { BF16 };
    let worst = agree(&inputs, dtype, bound, |b, x| run(b, heads, x), |b, x| run(b, heads, x));
    println!("{o:?} heads {heads} {dtype:?}: {worst:.1e}");
}

#[test]
fn tensor_cores_at_every_width() {
    let s = Shape::new;
    for (o, heads) in [
        (s(2, 1, 1, 16), 1),   // one token
        (s(1, 7, 1, 48), 2),   // narrower than its instance
        (s(2, 7, 7, 64), 2),   // 49 tokens
        (s(1, 10, 13, 64), 1), // a second block of two rows
        (s(1, 10, 10, 128), 1),
    ] {
        check(o, heads, Dtype::Bf16);
    }
}

#[test]
fn any_width_without_tensor_cores() {
    let s = Shape::new;
    for (o, heads, dtype) in [
        (s(2, 1, 1, 1), 1, Dtype::F32),
        (s(1, 3, 5, 15), 3, Dtype::F32),
        (s(1, 7, 10, 64), 1, Dtype::F32), // a second block of six rows
        (s(1, 5, 7, 100), 1, Dtype::F32),
        (s(1, 5, 5, 34), 2, Dtype::Bf16),
        (s(1, 3, 3, 68), 1, Dtype::Bf16),
    ] {
        check(o, heads, dtype);
    }
}

/// Scores far above and below those of one tile: the running maximum must be used.
#[test]
fn scores_of_any_size() {
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let o = Shape::new(1, 9, 15, 16);
        let mut inputs = [Input::normal(o.with_c(48), dtype, 0), Input::normal(o, dtype, 1)];
        for (token, row) in inputs[0].values.chunks_exact_mut(48).enumerate() {
            row[16..32].iter_mut().for_each(|k| *k *= [0.25, 16.0, 1.0][token / 50]);
        }
        // f32: scores of up to 16 √16 = 64 are rounded by 64 · 6e-8, the relative error of their exponentials. bf16: one key
        // has most of the weight, so that dp - delta cancels, and delta is of the o that was rounded.
        let bound = if dtype == Dtype::F32 { 2e-5 } else { 2.0 * BF16 };
        agree(&inputs, dtype, bound, |b, x| run(b, 1, x), |b, x| run(b, 1, x));
    }
}

#[test]
fn sequences_of_1024_tokens() {
    let config = schedules().next().expect("at least one");
    for dtype in [Dtype::F32, Dtype::Bf16] {
        let o = Shape::new(1, 32, 32, 32);
        let inputs = [Input::normal(o.with_c(96), dtype, 0), Input::normal(o, dtype, 1)];
        let expected = {
            let b = diem::backend::reference::Reference::new();
            let x: Vec<_> = inputs.iter().map(|input| b.upload(input.shape, &input.values)).collect();
            run(&b, 1, &x)
        };
        let b = device(config, dtype);
        let x: Vec<_> = inputs.iter().map(|input| b.upload_as(input.shape, &input.values, dtype)).collect();
        for (found, expected) in run(&b, 1, &x).iter().zip(&expected) {
            let error = crate::harness::relative_error(&b.to_vec(found).unwrap(), expected);
            assert!(error <= if dtype == Dtype::F32 { F32 } else { BF16 }, "{dtype:?}: {error:.1e}");
        }
    }
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    for (dtype, o, heads) in [(Dtype::Bf16, Shape::new(3, 10, 13, 32), 2), (Dtype::F32, Shape::new(3, 5, 7, 10), 2)] {
        let inputs = [Input::normal(o.with_c(3 * o.c), dtype, 0), Input::normal(o, dtype, 1)];
        for config in schedules() {
            let b = device(config, dtype);
            let results = |n: usize, first: usize| -> Vec<Vec<f64>> {
                let x = inputs.each_ref().map(|input| {
                    let row = input.shape.row();
                    b.upload_as(input.shape.with_n(n), &input.values[first * row..(first + n) * row], dtype)
                });
                run(&b, heads, &x).iter().map(|y| b.to_vec(y).unwrap()).collect()
            };
            let (all, second) = (results(3, 0), results(1, 1));
            for (all, second) in all.iter().zip(&second) {
                assert_eq!(all[second.len()..2 * second.len()], second[..], "{config:?}");
            }
        }
    }
}
