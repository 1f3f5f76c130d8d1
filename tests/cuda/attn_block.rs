//! The attention block on the GPU, fused, against the composition of the reference's ops.

use crate::harness::{Input, agree};
use diem::backend::cuda::Dtype;
use diem::backend::{Array, Keep, Shape};
use diem::ops::attn_block::{AttnBlockGrads, AttnBlockWeights};
use diem::ops::channel_norm::Modulation;
use diem::ops::{AttnBlock, GatedResidual};

const HEADS: usize = 2;
const X: Shape = Shape::new(2, 3, 5, 32);

/// Sums of 32 products of rounding error 6e-8 in two layers, norm and softmax.
const F32: f64 = 3e-6;
/// The branch is rounded after the norm, the first layer, the attention and at the end, to 2e-3 of its norm each.
const BF16: f64 = 1e-2;

/// Values that bf16 holds, in f32: packing does not round them.
fn exact(shape: Shape, slot: usize, scale: f64) -> Input {
    let values = Input::normal(shape, Dtype::Bf16, slot).values;
    Input::new(shape, Dtype::F32, values.into_iter().map(|x| x * scale))
}

/// x, dout, abc, then the weights.
fn inputs(dtype: Dtype, rows: usize) -> [Input; 6] {
    let c = X.c;
    [
        Input::normal(X, dtype, 0),
        Input::normal(X, dtype, 1),
        exact(Shape::new(rows, 1, 1, 3 * c), 2, 0.5),
        exact(Shape::flat(3 * c * c), 3, 0.25),
        exact(Shape::flat(3 * c), 4, 0.5),
        exact(Shape::flat(c * c), 5, 0.25),
    ]
}

/// The value and dx; with `params` also the parameter gradients.
fn run<B: AttnBlock + GatedResidual>(b: &B, x: &[B::Tensor], params: bool) -> Vec<B::Tensor> {
    let c = X.c;
    let (qkv, out) = (b.linear(c, 3 * c, &x[3], Some(&x[4])), b.linear(c, c, &x[5], None));
    let k = AttnBlockWeights { qkv: &qkv, out: &out, heads: HEADS };
    let m = Modulation { abc: b.copy(&x[2]), gates: b.gates(&x[2]) };
    let (y, saved) = b.attn_block_forward(&k, &m, &x[0], if params { Keep::All } else { Keep::Input });
    let saved = saved.expect("kept");
    if !params {
        return vec![b.attn_block_vjp(&k, &m, &saved, &x[1], None), y];
    }
    let [mut dw_qkv, mut db_qkv, mut dw_out, mut dabc] = [&x[3], &x[4], &x[5], &x[2]].map(|x| b.zeros(x.shape()));
    let grads =
        AttnBlockGrads { x: &x[0], dw_qkv: &mut dw_qkv, db_qkv: &mut db_qkv, dw_out: &mut dw_out, dabc: &mut dabc };
    let dx = b.attn_block_vjp(&k, &m, &saved, &x[1], Some(grads));
    vec![dx, y, dw_qkv, db_qkv, dw_out, dabc]
}

#[test]
fn value_and_gradient() {
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, BF16)] {
        for rows in [1, X.n] {
            let worst = agree(&inputs(dtype, rows), dtype, bound, |b, x| run(b, x, false), |b, x| run(b, x, false));
            println!("{dtype:?}, {rows} modulations: {worst:.1e}");
        }
    }
}

#[test]
fn parameter_gradients() {
    for (dtype, bound) in [(Dtype::F32, F32), (Dtype::Bf16, BF16)] {
        let worst = agree(&inputs(dtype, 1), dtype, bound, |b, x| run(b, x, true), |b, x| run(b, x, true));
        println!("{dtype:?}: {worst:.1e}");
    }
}
