//! Convolution, linear layers, residual block and merge on the CPU: against the f64 definition at odd sizes, by every
//! algorithm and instruction set, and the same bits for any batch, any number of threads and AVX2 or AVX-512.

mod cpu_inputs;

use cpu_inputs::random;
use diem::backend::cpu::simd::Isa;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Array, Backend, Keep, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::conv2d::Conv2dSpec;
use diem::ops::res_block::{ResBlockGrads, ResBlockWeights};
use diem::ops::{Conv2d, Linear, Merge, ResBlock};
use std::ops::Range;

/// The bound of the project for one op. F(4x4) measures 0.6e-6 to 3.3e-6 in norm at 16 to 640 channels, the direct form 3e-7.
const ONE_OP: f64 = 1e-5;
/// A residual block is a chain of three ops that amplify nothing, each within the bound of one op.
const BLOCK: f64 = 3e-5;

/// The rows `samples` of a random array with `s.n` rows.
fn input<B: Backend>(b: &B, seed: u64, s: Shape, samples: &Range<usize>) -> B::Tensor {
    let all = random(seed, s.len(), 1.0);
    b.upload(s.with_n(samples.len()), &all[samples.start * s.row()..samples.end * s.row()])
}

/// A random flat array, such as the weights of a layer.
fn flat<B: Backend>(b: &B, seed: u64, len: usize, scale: f64) -> B::Tensor {
    b.upload(Shape::flat(len), &random(seed, len, scale))
}

fn outputs<B: Backend, const K: usize>(b: &B, tensors: [&B::Tensor; K]) -> Vec<Vec<f64>> {
    tensors.iter().map(|t| b.to_vec(t).unwrap()).collect()
}

/// The ops under test.
trait Tested: Conv2d + Linear + ResBlock + Merge {}
impl<B: Conv2d + Linear + ResBlock + Merge> Tested for B {}

/// An op on random inputs.
trait Case {
    fn batch(&self) -> usize;
    /// Per-sample outputs for `samples` of the batch, then sums over these samples (parameter gradients).
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> [Vec<Vec<f64>>; 2];
    fn name(&self) -> String;
    fn tolerance(&self) -> f64 {
        ONE_OP
    }
}

fn assert_close(name: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(found.iter().all(|x| x.is_finite()), "{name}: not finite");
    let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(error <= tolerance * norm, "{name}: relative error {:.2e}", error / norm);
}

fn cpu(threads: usize, isa: Isa, low_memory: bool) -> Cpu {
    Cpu::new(Options { threads, isa, low_memory, poison: true }).unwrap()
}

/// Against the definition, and bit by bit over threads, batches and instruction sets with fused multiply-add.
fn check(case: &impl Case) {
    let expected = case.run(&Reference::new(), 0..case.batch()).concat();
    for low_memory in [false, true] {
        let mut fused: Option<Vec<Vec<f64>>> = None;
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let name = format!("{} on {isa:?}, low_memory {low_memory}", case.name());
            let found = case.run(&cpu(2, isa, low_memory), 0..case.batch());
            for (k, (found, expected)) in found.concat().iter().zip(&expected).enumerate() {
                assert_close(&format!("{name}, output {k}"), found, expected, case.tolerance());
            }
            let one = cpu(1, isa, low_memory);
            assert!(found == case.run(&one, 0..case.batch()), "{name}: depends on the number of threads");
            let each: Vec<_> = (0..case.batch()).map(|n| case.run(&one, n..n + 1)[0].clone()).collect();
            for (k, all) in found[0].iter().enumerate() {
                let each: Vec<f64> = each.iter().flat_map(|outputs| outputs[k].clone()).collect();
                assert!(*all == each, "{name}: output {k} depends on the batch");
            }
            if isa != Isa::Portable {
                assert!(*fused.get_or_insert(found.concat()) == found.concat(), "{name}: depends on the vectors");
            }
        }
    }
}

/// Forward, VJP and parameter VJP of a convolution.
struct Conv {
    x: Shape,
    c_out: usize,
    stride: usize,
}

impl Case for Conv {
    fn batch(&self) -> usize {
        self.x.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> [Vec<Vec<f64>>; 2] {
        let spec = Conv2dSpec { c_in: self.x.c, c_out: self.c_out, stride: self.stride };
        let w = flat(b, 1, 9 * spec.c_in * spec.c_out, 1.0 / (9.0 * spec.c_in as f64).sqrt());
        let k = b.conv2d(spec, &w, &flat(b, 2, spec.c_out, 0.5), self.x, true);
        let x = input(b, 3, self.x, &samples);
        let dy = input(b, 4, spec.output(self.x), &samples);
        let (y, dx) = (b.conv2d_forward(&k, &x), b.conv2d_vjp(&k, x.shape(), &dy));
        // The gradients are added to what is there.
        let (mut dw, mut db) = (flat(b, 5, 9 * spec.c_in * spec.c_out, 1.0), flat(b, 6, spec.c_out, 1.0));
        b.conv2d_vjp_params(&k, &x, &dy, &mut dw, &mut db);
        [outputs(b, [&y, &dx]), outputs(b, [&dw, &db])]
    }
    fn name(&self) -> String {
        format!("convolution of {:?} to {}, stride {}", self.x, self.c_out, self.stride)
    }
}

#[test]
fn convolution_of_every_size() {
    for (i, h) in (1..=13).enumerate() {
        let w = 1 + (5 * i + 3) % 13;
        check(&Conv { x: Shape::new(1 + i % 3, h, w, 16), c_out: 32, stride: 1 });
        check(&Conv { x: Shape::new(1 + (i + 1) % 3, h, w, 5), c_out: 3, stride: 1 });
        check(&Conv { x: Shape::new(1 + (i + 2) % 3, h, w, 16), c_out: 18, stride: 2 });
    }
}

#[test]
fn convolution_of_many_channels() {
    for (c_in, c_out) in [(48, 112), (96, 16), (3, 32), (32, 3), (33, 20)] {
        for stride in [1, 2] {
            check(&Conv { x: Shape::new(2, 7, 9, c_in), c_out, stride });
        }
    }
    // More tiles than one task takes, and sums of length 9 · 256.
    check(&Conv { x: Shape::new(3, 29, 30, 16), c_out: 16, stride: 1 });
    check(&Conv { x: Shape::new(1, 8, 8, 256), c_out: 32, stride: 1 });
    // More tiles than a block of the weight gradient takes: 3,843 of 4 x 4.
    check(&Conv { x: Shape::new(1, 242, 250, 16), c_out: 16, stride: 1 });
}

#[test]
fn a_layer_packed_for_one_size_takes_another() {
    let (one, other) = (Shape::new(1, 8, 8, 16), Shape::new(2, 3, 5, 16));
    let spec = Conv2dSpec { c_in: 16, c_out: 16, stride: 1 };
    fn run<B: Conv2d>(b: &B, spec: Conv2dSpec, packed: Shape, x: Shape) -> Vec<f64> {
        let k = b.conv2d(spec, &flat(b, 1, 9 * 256, 0.1), &flat(b, 2, 16, 1.0), packed, false);
        b.to_vec(&b.conv2d_forward(&k, &input(b, 3, x, &(0..x.n)))).unwrap()
    }
    let expected = run(&Reference::new(), spec, one, other);
    assert_close("convolution", &run(&cpu(2, Isa::detect(), false), spec, one, other), &expected, ONE_OP);
}

/// Forward, VJP and parameter VJP of a linear layer.
struct Fc {
    x: Shape,
    c_out: usize,
    bias: bool,
}

impl Case for Fc {
    fn batch(&self) -> usize {
        self.x.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> [Vec<Vec<f64>>; 2] {
        let (c_in, c_out) = (self.x.c, self.c_out);
        let w = flat(b, 1, c_in * c_out, 1.0 / (c_in as f64).sqrt());
        let bias = self.bias.then(|| flat(b, 2, c_out, 0.5));
        let k = b.linear(c_in, c_out, &w, bias.as_ref());
        let x = input(b, 3, self.x, &samples);
        let dy = input(b, 4, self.x.with_c(c_out), &samples);
        let (y, dx) = (b.linear_forward(&k, &x), b.linear_vjp(&k, &dy));
        let (mut dw, mut db) = (flat(b, 5, c_in * c_out, 1.0), flat(b, 6, c_out, 1.0));
        b.linear_vjp_params(&k, &x, &dy, &mut dw, self.bias.then_some(&mut db));
        [outputs(b, [&y, &dx]), outputs(b, [&dw, &db])]
    }
    fn name(&self) -> String {
        format!("linear layer of {:?} to {}, bias {}", self.x, self.c_out, self.bias)
    }
}

#[test]
fn linear() {
    for (i, (c_in, c_out)) in [(1, 1), (3, 17), (64, 96), (33, 5), (257, 40), (20, 131)].into_iter().enumerate() {
        for (h, w) in [(1, 1), (5, 7)] {
            check(&Fc { x: Shape::new(1 + i % 3, h, w, c_in), c_out, bias: i % 2 == 0 });
        }
    }
    // More rows than one task takes.
    check(&Fc { x: Shape::new(2, 13, 17, 24), c_out: 48, bias: true });
}

/// Forward and VJPs of the residual block, with one row of modulation for all samples or one for each.
struct Residual {
    x: Shape,
    rows: usize,
    keep: Keep,
}

impl Case for Residual {
    fn batch(&self) -> usize {
        self.x.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> [Vec<Vec<f64>>; 2] {
        let c = self.x.c;
        let spec = Conv2dSpec { c_in: c, c_out: c, stride: 1 };
        let [conv1, conv2] = [1, 3].map(|seed| {
            let w = flat(b, seed, 9 * c * c, 1.0 / (3.0 * c as f64).sqrt());
            b.conv2d(spec, &w, &flat(b, seed + 1, c, 0.5), self.x, self.keep != Keep::Nothing)
        });
        let k = ResBlockWeights { conv1: &conv1, conv2: &conv2 };
        let of_rows = if self.rows == 1 { 0..1 } else { samples.clone() };
        let abc = input(b, 5, Shape::rows(self.rows, 3 * c), &of_rows);
        let m = Modulation { gates: b.gates(&abc), abc };
        let (x, dout) = (input(b, 6, self.x, &samples), input(b, 7, self.x, &samples));
        let (out, saved) = b.res_block_forward(&k, &m, &x, self.keep);
        let Some(saved) = saved else { return [outputs(b, [&out]), vec![]] };
        let dx = b.res_block_vjp(&k, &m, &saved, &dout, None);
        if self.keep == Keep::Input {
            assert!(saved.params.is_none());
            return [outputs(b, [&out, &dx]), vec![]];
        }
        let [mut dw1, mut dw2] = [8, 9].map(|seed| flat(b, seed, 9 * c * c, 1.0));
        let [mut db1, mut db2] = [10, 11].map(|seed| flat(b, seed, c, 1.0));
        let mut dabc = b.zeros(m.abc.shape());
        let grads =
            ResBlockGrads { x: &x, dw1: &mut dw1, db1: &mut db1, dw2: &mut dw2, db2: &mut db2, dabc: &mut dabc };
        let again = b.res_block_vjp(&k, &m, &saved, &dout, Some(grads));
        assert!(b.to_vec(&dx).unwrap() == b.to_vec(&again).unwrap(), "the VJP depends on whether gradients are wanted");
        [outputs(b, [&out, &dx]), outputs(b, [&dw1, &db1, &dw2, &db2, &dabc])]
    }
    fn name(&self) -> String {
        format!("residual block of {:?}, {} rows of modulation, {:?}", self.x, self.rows, self.keep)
    }
    fn tolerance(&self) -> f64 {
        BLOCK
    }
}

#[test]
fn residual_block() {
    for (h, w, c) in [(5, 6, 32), (9, 3, 5), (1, 1, 16)] {
        for (rows, keep) in [(1, Keep::Nothing), (3, Keep::Input), (1, Keep::All), (3, Keep::All)] {
            check(&Residual { x: Shape::new(3, h, w, c), rows, keep });
        }
    }
}

/// Forward and VJPs of the merge: `x` (N, H, W, C1) with a skip of `c2` channels.
struct Join {
    x: Shape,
    c2: usize,
    c_out: usize,
}

impl Case for Join {
    fn batch(&self) -> usize {
        self.x.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> [Vec<Vec<f64>>; 2] {
        let (c1, c2) = (self.x.c, self.c2);
        let full = Shape::new(self.x.n, 2 * self.x.h, 2 * self.x.w, c1 + c2);
        let spec = Conv2dSpec { c_in: c1 + c2, c_out: self.c_out, stride: 1 };
        let w = flat(b, 1, 9 * spec.c_in * spec.c_out, 1.0 / (9.0 * spec.c_in as f64).sqrt());
        let k = b.merge(spec, c1, &w, &flat(b, 2, spec.c_out, 0.5), full, true);
        let x = input(b, 3, self.x, &samples);
        let skip = input(b, 4, full.with_c(c2), &samples);
        let dy = input(b, 5, full.with_c(self.c_out), &samples);
        let y = b.merge_forward(&k, &x, &skip);
        let (dx, dskip) = b.merge_vjp(&k, c1, c2, &dy);
        let (mut dw, mut db) = (flat(b, 6, 9 * spec.c_in * spec.c_out, 1.0), flat(b, 7, spec.c_out, 1.0));
        b.merge_vjp_params(&k, &x, &skip, &dy, &mut dw, &mut db);
        [outputs(b, [&y, &dx, &dskip]), outputs(b, [&dw, &db])]
    }
    fn name(&self) -> String {
        format!("merge of {:?} and {} channels to {}", self.x, self.c2, self.c_out)
    }
}

#[test]
fn merge() {
    for (h, w, c1, c2, c_out) in [(3, 5, 32, 16, 16), (1, 2, 16, 48, 32), (4, 1, 3, 5, 7), (2, 3, 24, 8, 16)] {
        check(&Join { x: Shape::new(2, h, w, c1), c2, c_out });
    }
}

#[test]
fn nothing_is_allocated_after_the_first_step() {
    let b = cpu(2, Isa::detect(), false);
    let case = Residual { x: Shape::new(2, 8, 8, 32), rows: 1, keep: Keep::All };
    case.run(&b, 0..2);
    let fresh = b.memory().fresh;
    case.run(&b, 0..2);
    assert_eq!(b.memory().fresh, fresh);
}

#[test]
fn an_instruction_set_that_is_missing_is_refused() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.available()) {
        assert!(Cpu::new(Options { isa, ..Options::default() }).is_err());
    }
}
