//! Whole steps of training on the device, against the reference and the CPU.

use crate::harness::{Place, device, relative_error};
use diem::backend::Shape;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::cuda::Dtype;
use diem::backend::reference::Reference;
use diem::data::Samples;
use diem::data::checkpoint::{Kind, Metadata};
use diem::nn::{MlpConfig, UNetConfig};
use diem::ops::TrainingOps;
use diem::ops::noise::{Purpose, Stream};
use diem::train::{Data, Initial, Settings, StepReport, Trainer};
use safetensors::{Dtype as Stored, SafeTensors};

const RUN: Stream = Stream { seed: 2, purpose: Purpose::Test, step: 0, correction: 0, iteration: 1, epoch: 0 };

fn unet() -> (Metadata, Shape) {
    let (channels, blocks, heads) = (vec![16, 32], vec![1, 1], vec![0, 2]);
    let config = UNetConfig { in_channels: 3, out_channels: 3, channels, blocks, heads, emb: 16, patch: 1 };
    (Metadata::new(Kind::UNet(config)), Shape::new(1, 8, 8, 3))
}

fn mlp() -> (Metadata, Shape) {
    (Metadata::new(Kind::Mlp(MlpConfig { features: 5, hidden: vec![32, 16], emb: 8 })), Shape::rows(1, 5))
}

fn data(image: Shape) -> Data {
    let row = |n: u32| {
        let stream = Stream::new(1, Purpose::Test);
        (0..).flat_map(move |block| stream.normals(n, block)).take(image.row()).map(|x| x as f32)
    };
    Data::new(Samples::new(image.with_n(7), (0..7).flat_map(row).collect()))
}

/// A tensor's name and its numbers.
type Tensor = (String, Vec<f64>);

/// Two steps with dropout, parts, clipping, decay and an average: their reports, and the gradients of the first: Adam's first
/// moment is a tenth of them, clipped.
fn train<B: TrainingOps>(
    backend: &B,
    (metadata, image): &(Metadata, Shape),
) -> (Vec<StepReport>, Vec<Tensor>, Vec<Tensor>) {
    let settings =
        Settings { batch: 3, micro_batch: 2, lr: 1e-3, weight_decay: 0.1, clip: 0.5, ema: 0.5, ..Settings::default() };
    let data = data(*image);
    let mut trainer = Trainer::new(backend, metadata, *image, settings, Initial::Seed(3), 4).unwrap();
    let first = trainer.step(&data, RUN).unwrap();
    let moments = state(&trainer, "m.");
    let reports = vec![first, trainer.step(&data, RUN).unwrap()];
    (reports, moments, state(&trainer, "average."))
}

fn state<B: TrainingOps>(trainer: &Trainer<'_, B>, set: &str) -> Vec<Tensor> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    trainer.save(&path).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut found: Vec<Tensor> = tensors
        .iter()
        .filter_map(|(name, tensor)| {
            let bytes = tensor.data();
            let values = match tensor.dtype() {
                Stored::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
                _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
            };
            Some((name.strip_prefix(set)?.to_owned(), values))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn all(tensors: &[Tensor]) -> Vec<f64> {
    tensors.iter().flat_map(|(_, x)| x.iter().copied()).collect()
}

/// DESIGN section 5: the network to 1e-4 in f32, to 3e-2 in bf16; each gradient in f32, all of them together in bf16, where those
/// of biases behind a norm are what is left of sums that cancel.
fn compare<B: TrainingOps>(backend: &B, task: &(Metadata, Shape), bound: f64, each: bool) {
    let (expected, found) = (train(&Reference::new(), task), train(backend, task));
    for (e, f) in expected.0.iter().zip(&found.0) {
        assert_eq!((e.step, e.epoch, e.lr), (f.step, f.epoch, f.lr));
        for (name, e, f) in [("loss", e.loss, f.loss), ("norm", e.gradient_norm, f.gradient_norm)] {
            assert!((e - f).abs() <= bound * e.abs(), "{}: {name} {f}, expected {e}", backend.name());
        }
    }
    let error = relative_error(&all(&found.1), &all(&expected.1));
    assert!(error <= bound, "{}: gradient {error:.1e}", backend.name());
    for ((name, e), (_, f)) in
        expected.1.iter().zip(&found.1).filter(|((name, _), _)| each && !name.ends_with(".k.bias"))
    {
        let error = relative_error(f, e);
        assert!(error <= bound, "{}: gradient of {name} {error:.1e}", backend.name());
    }
    // a step of Adam is lr at most, whatever a gradient's error: what the weights have moved is 2e-3 of them at most
    let error = relative_error(&all(&found.2), &all(&expected.2));
    assert!(error <= 2e-3, "{}: average {error:.1e}", backend.name());
}

#[test]
fn training_agrees_with_the_reference() {
    for task in [unet(), mlp()] {
        compare(&Cpu::new(Options { poison: true, ..Options::default() }).unwrap(), &task, 1e-4, true);
        compare(&device(Place::default(), Dtype::F32), &task, 1e-4, true);
    }
    compare(&device(Place::default(), Dtype::Bf16), &unet(), 3e-2, false);
}

#[test]
fn training_has_the_same_bits_twice() {
    let run = || train(&device(Place::default(), Dtype::F32), &unet());
    let (first, second) = (run(), run());
    assert_eq!((first.0, first.1, first.2), (second.0, second.1, second.2));
}
