//! The fused kernels of the multilayer perceptron against the composition of the reference's layers.

use crate::harness::{Input, Place, agree, counted, device, schedules};
use diem::backend::cuda::Dtype;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::ops::mlp::MlpWeights;
use diem::ops::{Linear, Mlp};

/// Three layers of sums of up to 256 products of rounding error 6e-8, of random sign, and norms between them.
const F32: f64 = 5e-6;
/// Layer by layer, each with an output and a norm that are rounded to 2e-3 of their norm.
const BF16: f64 = 2e-2;

struct Network {
    features: usize,
    emb: usize,
    hidden: &'static [usize],
}

/// A warp's samples end in the middle of the second block.
const N: usize = 67;
const NETWORKS: [Network; 3] = [
    Network { features: 5, emb: 64, hidden: &[256] },
    Network { features: 3, emb: 6, hidden: &[40] }, // two groups of outputs, the second in part
    Network { features: 33, emb: 2, hidden: &[96, 24] },
];

impl Network {
    /// Inputs and outputs of every layer.
    fn widths(&self) -> Vec<[usize; 2]> {
        let mut all = vec![self.features + self.emb];
        all.extend(self.hidden);
        all.push(self.features);
        all.windows(2).map(|pair| [pair[0], pair[1]]).collect()
    }
    /// x, the embedding, dy, then weight and bias of every layer.
    fn inputs(&self, rows: usize, dtype: Dtype) -> Vec<Input> {
        let mut inputs = vec![
            Input::normal(Shape::rows(N, self.features), dtype, 0),
            Input::f32(Shape::rows(rows, self.emb), 1),
            Input::normal(Shape::rows(N, self.features), dtype, 2),
        ];
        for [c_in, c_out] in self.widths() {
            let slot = inputs.len();
            let w = Input::f32(Shape::flat(c_in * c_out), slot).values;
            let w = w.into_iter().map(|w| w / (c_in as f64).sqrt());
            inputs.push(Input::new(Shape::flat(c_in * c_out), Dtype::F32, w));
            inputs.push(Input::f32(Shape::flat(c_out), slot + 1));
        }
        inputs
    }
    /// Value, dx and everything that was kept.
    fn run<B: Mlp>(&self, b: &B, x: &[B::Tensor]) -> Vec<B::Tensor> {
        let layers = self.widths().into_iter().zip(x[3..].chunks(2));
        let layers: Vec<_> = layers.map(|([c_in, c_out], wb)| b.linear(c_in, c_out, &wb[0], Some(&wb[1]))).collect();
        let (last, hidden) = layers.split_last().expect("one layer at least");
        let k = MlpWeights { hidden: hidden.iter().collect(), last };
        let (y, saved) = b.mlp_forward(&k, &x[0], &x[1], Keep::All);
        let saved = saved.expect("kept");
        let mut found = vec![b.mlp_vjp(&k, &saved, &x[2]), y, b.copy(saved.input.as_ref().expect("kept"))];
        for layer in &saved.hidden {
            found.extend([&layer.derivative, &layer.y, &layer.rstd].map(|kept| b.copy(kept)));
        }
        assert_eq!(b.mlp_forward(&k, &x[0], &x[1], Keep::Nothing).0.shape(), found[1].shape());
        found
    }
}

#[test]
fn values_gradients_and_what_is_kept() {
    for network in &NETWORKS {
        for rows in [1, N] {
            let inputs = network.inputs(rows, Dtype::F32);
            let worst = agree(&inputs, Dtype::F32, F32, |b, x| network.run(b, x), |b, x| network.run(b, x));
            println!("{:?}, {rows} embeddings: {worst:.1e}", network.hidden);
        }
    }
}

#[test]
fn other_precisions_go_by_layers() {
    let inputs = NETWORKS[1].inputs(1, Dtype::Bf16);
    agree(&inputs, Dtype::Bf16, BF16, |b, x| NETWORKS[1].run(b, x), |b, x| NETWORKS[1].run(b, x));
}

#[test]
fn a_pass_is_one_launch() {
    let network = &NETWORKS[0];
    let b = counted(Place::default(), Dtype::F32, false);
    let x: Vec<_> = network.inputs(1, Dtype::F32).iter().map(|i| b.upload(i.shape, &i.values)).collect();
    let layers = network.widths().into_iter().zip(x[3..].chunks(2));
    let layers: Vec<_> = layers.map(|([c_in, c_out], wb)| b.linear(c_in, c_out, &wb[0], Some(&wb[1]))).collect();
    let (last, hidden) = layers.split_last().expect("one layer at least");
    let k = MlpWeights { hidden: hidden.iter().collect(), last };
    let launches = || b.driver().counters().launches;
    let before = launches();
    drop(b.mlp_forward(&k, &x[0], &x[1], Keep::Nothing));
    assert_eq!(launches() - before, 2, "the value's NaN, and the pass");
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    let network = &NETWORKS[0];
    for config in schedules() {
        let b = device(config, Dtype::F32);
        let results = |rows: std::ops::Range<usize>| -> Vec<Vec<f64>> {
            let inputs = network.inputs(1, Dtype::F32).into_iter().enumerate().map(|(i, input)| {
                let d = network.features;
                if i == 0 || i == 2 {
                    b.upload(Shape::rows(rows.len(), d), &input.values[rows.start * d..rows.end * d])
                } else {
                    b.upload(input.shape, &input.values)
                }
            });
            network.run(&b, &inputs.collect::<Vec<_>>()).iter().take(2).map(|y| b.to_vec(y).unwrap()).collect()
        };
        let (all, one) = (results(0..N), results(13..14));
        for (all, one) in all.iter().zip(&one) {
            assert_eq!(all[13 * network.features..14 * network.features], one[..], "{config:?}");
        }
    }
}
