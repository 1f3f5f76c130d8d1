//! The CPU forms of norm, SiLU, gated residual, upsampling and attention: against the f64 definition at odd sizes, on
//! every instruction set that the machine has, and the same bits for any batch and any number of threads.

mod cpu_inputs;

use cpu_inputs::random;
use diem::backend::cpu::simd::Isa;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Keep, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::{Attention, ChannelNorm, GatedResidual, Silu, Upsample};
use std::ops::Range;

/// Ops with an independent implementation in f64. One f32 op rounds each element a few times at 6e-8, and sums of up to
/// a few thousand terms add up to about 1e-6; the bound of the project for one op leaves a factor of ten.
const TOLERANCE: f64 = 1e-5;

/// The ops under test.
trait Tested: Attention + ChannelNorm + GatedResidual + Silu + Upsample {}
impl<B: Attention + ChannelNorm + GatedResidual + Silu + Upsample> Tested for B {}

/// An op on random inputs of some shape.
trait Case {
    /// Samples in the batch.
    fn batch(&self) -> usize;
    /// The outputs for `samples` of the batch.
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>>;
    /// What it is called in a failure.
    fn name(&self) -> String;
}

/// The rows `samples` of a random array with `s.n` rows.
fn input<B: Backend>(b: &B, seed: u64, s: Shape, scale: f64, samples: &Range<usize>) -> B::Tensor {
    let all = random(seed, s.len(), scale);
    b.upload(s.with_n(samples.len()), &all[samples.start * s.row()..samples.end * s.row()])
}

fn modulation<B: GatedResidual>(b: &B, c: usize, rows: usize, samples: &Range<usize>) -> Modulation<B> {
    let of_rows = if rows == 1 { 0..1 } else { samples.clone() };
    let abc = input(b, 77, Shape::rows(rows, 3 * c), 1.5, &of_rows);
    let gates = b.gates(&abc);
    Modulation { abc, gates }
}

fn outputs<B: Backend, const K: usize>(b: &B, tensors: [&B::Tensor; K]) -> Vec<Vec<f64>> {
    tensors.iter().map(|t| b.to_vec(t).unwrap()).collect()
}

fn assert_close(name: &str, found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(found.iter().all(|x| x.is_finite()), "{name}: not finite");
    let norm = expected.iter().map(|x| x * x).sum::<f64>().sqrt();
    let error = found.iter().zip(expected).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
    assert!(error <= TOLERANCE * norm, "{name}: relative error {:.2e}", error / norm);
}

fn check(case: &impl Case) {
    let expected = case.run(&Reference::new(), 0..case.batch());
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let [one, two] = [1, 2].map(|threads| {
            // Saving memory must not change the bits either: it does so with two threads.
            let low_memory = threads == 2;
            let cpu = Cpu::new(Options { threads, isa, low_memory, poison: true }).unwrap();
            let all = case.run(&cpu, 0..case.batch());
            let each: Vec<_> = (0..case.batch()).map(|n| case.run(&cpu, n..n + 1)).collect();
            for (k, all) in all.iter().enumerate() {
                let each: Vec<f64> = each.iter().flat_map(|outputs| outputs[k].clone()).collect();
                assert!(*all == each, "{} on {isa:?}: output {k} depends on the batch", case.name());
            }
            all
        });
        assert!(one == two, "{} on {isa:?}: depends on threads or memory", case.name());
        for (k, (found, expected)) in one.iter().zip(&expected).enumerate() {
            assert_close(&format!("{} on {isa:?}, output {k}", case.name()), found, expected);
        }
    }
}

const CHANNELS: [usize; 6] = [1, 3, 16, 17, 33, 128];

/// Forward and VJP of the norm; modulated with one row of modulation for all samples, one for each, or not at all.
struct Norm {
    shape: Shape,
    rows: Option<usize>,
}

impl Case for Norm {
    fn batch(&self) -> usize {
        self.shape.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>> {
        let m = self.rows.map(|rows| modulation(b, self.shape.c, rows, &samples));
        let x = input(b, 1, self.shape, 2.0, &samples);
        let (y, rstd) = b.channel_norm_forward(&x, m.as_ref());
        let dx = b.channel_norm_vjp(&y, &rstd, m.as_ref(), &input(b, 2, self.shape, 1.0, &samples));
        outputs(b, [&y, &rstd, &dx])
    }
    fn name(&self) -> String {
        format!("norm of {:?}, {:?} rows of modulation", self.shape, self.rows)
    }
}

#[test]
fn channel_norm() {
    // A single channel is normalised to 0, and its gradient vanishes up to rounding: nothing to compare.
    for c in CHANNELS.into_iter().filter(|c| *c > 1) {
        for rows in [None, Some(1), Some(3)] {
            check(&Norm { shape: Shape::new(3, 5, 7, c), rows });
        }
    }
    // More pixels than one task takes.
    check(&Norm { shape: Shape::new(2, 30, 31, 33), rows: Some(1) });
}

#[test]
fn channel_norm_of_one_channel_is_zero() {
    let cpu = Cpu::new(Options { poison: true, ..Options::default() }).unwrap();
    let s = Shape::new(2, 3, 3, 1);
    let (y, rstd) = cpu.channel_norm_forward(&input(&cpu, 3, s, 2.0, &(0..2)), None);
    let dx = cpu.channel_norm_vjp(&y, &rstd, None, &input(&cpu, 4, s, 1.0, &(0..2)));
    assert!(y.iter().chain(dx.iter()).all(|x| *x == 0.0));
    // 1/√(0 + 1e-5), rounded.
    assert!(rstd.iter().all(|r| (r * 1e-5f32.sqrt() - 1.0).abs() < 1e-6));
}

/// Parameter gradients of norm and gate, added to what is there.
struct Params {
    shape: Shape,
    rows: usize,
}

impl Params {
    fn run<B: Tested>(&self, b: &B) -> Vec<f64> {
        let (s, samples) = (self.shape, 0..self.shape.n);
        let m = modulation(b, s.c, self.rows, &samples);
        let [x, branch, dy] = [1, 2, 3].map(|seed| input(b, seed, s, 2.0, &samples));
        let mut dabc = input(b, 4, Shape::rows(self.rows, 3 * s.c), 5.0, &(0..self.rows));
        let (y, rstd) = b.channel_norm_forward(&x, Some(&m));
        b.channel_norm_vjp_params(&x, &y, &rstd, &dy, &mut dabc);
        b.gated_residual_vjp_params(&x, &branch, &m, &dy, &mut dabc);
        b.to_vec(&dabc).unwrap()
    }
}

#[test]
fn parameter_gradients() {
    for c in CHANNELS {
        for rows in [1, 4] {
            let case = Params { shape: Shape::new(4, 5, 7, c), rows };
            let expected = case.run(&Reference::new());
            for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
                let [one, two] = [1, 2].map(|threads| {
                    case.run(&Cpu::new(Options { threads, isa, poison: true, ..Options::default() }).unwrap())
                });
                assert!(one == two, "{c} channels on {isa:?}: depends on the number of threads");
                assert_close(&format!("dabc of {c} channels, {rows} rows, on {isa:?}"), &one, &expected);
            }
        }
    }
}

/// SiLU, with and without its derivative.
struct SiluCase(Shape);

impl Case for SiluCase {
    fn batch(&self) -> usize {
        self.0.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>> {
        let x = input(b, 1, self.0, 20.0, &samples);
        let (value, nothing) = b.silu_forward(&x, Keep::Nothing);
        assert!(nothing.is_none());
        let (y, derivative) = b.silu_forward(&x, Keep::Input);
        let derivative = derivative.expect("kept");
        let dx = b.silu_vjp(&derivative, &input(b, 2, self.0, 1.0, &samples));
        outputs(b, [&value, &y, &derivative, &dx])
    }
    fn name(&self) -> String {
        format!("silu of {:?}", self.0)
    }
}

#[test]
fn silu() {
    for c in CHANNELS {
        check(&SiluCase(Shape::new(3, 5, 7, c)));
    }
    check(&SiluCase(Shape::new(2, 30, 31, 33)));
}

/// Gated residual: forward and VJP.
struct Gate {
    shape: Shape,
    rows: usize,
}

impl Case for Gate {
    fn batch(&self) -> usize {
        self.shape.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>> {
        let m = modulation(b, self.shape.c, self.rows, &samples);
        let [x, branch, dy] = [1, 2, 3].map(|seed| input(b, seed, self.shape, 2.0, &samples));
        let y = b.gated_residual_forward(&x, &branch, &m);
        let (dx, dbranch) = b.gated_residual_vjp(&m, &dy);
        outputs(b, [&y, &dx, &dbranch])
    }
    fn name(&self) -> String {
        format!("gated residual of {:?}, {} rows of modulation", self.shape, self.rows)
    }
}

#[test]
fn gated_residual() {
    for c in CHANNELS {
        for rows in [1, 3] {
            check(&Gate { shape: Shape::new(3, 5, 7, c), rows });
        }
    }
    check(&Gate { shape: Shape::new(2, 30, 31, 33), rows: 2 });
}

/// Upsampling, and the VJP of an array of its size.
struct UpsampleCase(Shape);

impl Case for UpsampleCase {
    fn batch(&self) -> usize {
        self.0.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>> {
        let y = b.upsample_forward(&input(b, 1, self.0, 2.0, &samples));
        let upsampled = Shape { h: 2 * self.0.h, w: 2 * self.0.w, ..self.0 };
        let dx = b.upsample_vjp(&input(b, 2, upsampled, 2.0, &samples));
        outputs(b, [&y, &dx])
    }
    fn name(&self) -> String {
        format!("upsampling of {:?}", self.0)
    }
}

#[test]
fn upsample() {
    for c in CHANNELS {
        check(&UpsampleCase(Shape::new(3, 5, 7, c)));
    }
}

/// Attention: forward without and with what the VJP needs, and the VJP.
struct AttentionCase {
    shape: Shape, // of o
    heads: usize,
    scale: f64,
}

impl Case for AttentionCase {
    fn batch(&self) -> usize {
        self.shape.n
    }
    fn run<B: Tested>(&self, b: &B, samples: Range<usize>) -> Vec<Vec<f64>> {
        let qkv = || input(b, 1, self.shape.with_c(3 * self.shape.c), self.scale, &samples);
        let (value, nothing) = b.attention_forward(qkv(), self.heads, Keep::Nothing);
        assert!(nothing.is_none());
        let (o, saved) = b.attention_forward(qkv(), self.heads, Keep::Input);
        let d_o = input(b, 2, self.shape, 1.0, &samples);
        let dqkv = b.attention_vjp(&saved.expect("kept"), &d_o);
        outputs(b, [&value, &o, &dqkv])
    }
    fn name(&self) -> String {
        format!("attention of {:?}, {} heads, inputs up to {}", self.shape, self.heads, self.scale)
    }
}

#[test]
fn attention() {
    for (h, w) in [(1, 1), (1, 2), (1, 7), (3, 5), (5, 7), (8, 8), (7, 10)] {
        for (heads, d) in [(1, 1), (2, 5), (4, 8), (4, 16), (3, 17), (1, 24), (2, 33), (1, 64)] {
            check(&AttentionCase { shape: Shape::new(2, h, w, heads * d), heads, scale: 2.0 });
        }
    }
    check(&AttentionCase { shape: Shape::new(1, 17, 19, 20), heads: 1, scale: 2.0 });
}

#[test]
fn attention_with_large_scores() {
    check(&AttentionCase { shape: Shape::new(2, 7, 10, 64), heads: 4, scale: 12.0 });
}
