//! Training against PyTorch: tools/golden.py does the same steps, with the same random numbers, in float64.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::{Checkpoint, Samples};
use diem::ops::TrainingOps;
use diem::ops::noise::{Purpose, Stream};
use diem::train::{Data, Initial, Settings, StepReport, Trainer};
use safetensors::SafeTensors;
use std::path::PathBuf;

const STEPS: usize = 3;
/// Seed and lap of tools/golden_training.py.
const RUN: Stream = Stream { seed: 5, purpose: Purpose::Test, step: 0, correction: 0, iteration: 2, epoch: 0 };

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The numbers of a tensor, of either type.
fn values(tensors: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    let bytes = tensor.data();
    match tensor.dtype() {
        safetensors::Dtype::F64 => bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        _ => bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()).into()).collect(),
    }
}

/// |found - expected| <= bound |scale|, in the Euclidean norm.
fn check(name: &str, found: &[f64], expected: &[f64], scale: &[f64], bound: f64) {
    assert_eq!(found.len(), expected.len(), "{name}");
    assert!(found.iter().all(|x| x.is_finite()), "{name} is not finite");
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(a, b)| a - b)) / norm(&mut scale.iter().copied());
    assert!(error <= bound, "{name}: relative error {error:.1e} above {bound:.0e}");
}

/// PyTorch's steps, and a trainer that is to do the same.
struct Golden {
    file: Vec<u8>,
    checkpoint: Checkpoint,
    settings: Settings,
}

impl Golden {
    fn read(name: &str) -> Self {
        let bytes = std::fs::read(file(&format!("{name}.training.safetensors"))).unwrap();
        let (_, info) = SafeTensors::read_metadata(&bytes).unwrap();
        let settings = serde_json::from_str(&info.metadata().as_ref().unwrap()["settings"]).unwrap();
        Self { checkpoint: Checkpoint::open(&file(&format!("{name}.safetensors"))).unwrap(), settings, file: bytes }
    }
    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.file).unwrap()
    }
    fn data(&self) -> Data {
        let tensors = self.tensors();
        let shape = match *tensors.tensor("data").unwrap().shape() {
            [n, h, w, c] => Shape::new(n, h, w, c),
            [n, d] => Shape::rows(n, d),
            _ => panic!("the extents of data"),
        };
        Data::new(Samples::new(shape, values(&tensors, "data").iter().map(|x| *x as f32).collect()))
    }
    fn trainer<'a, B: TrainingOps>(&self, backend: &'a B, data: &Data) -> Trainer<'a, B> {
        let initial = Initial::Checkpoint(&self.checkpoint);
        let metadata = self.checkpoint.metadata();
        Trainer::new(backend, metadata, data.image(), self.settings.clone(), initial, STEPS as u64).unwrap()
    }
    /// Loss, gradient norm and learning rate of a step.
    fn check_report(&self, report: &StepReport, bound: f64) {
        let tensors = self.tensors();
        let found = [("loss", report.loss), ("norm", report.gradient_norm), ("lr", report.lr)];
        for (name, found) in found {
            let name = format!("{}.{name}", report.step);
            let expected = values(&tensors, &name);
            check(&name, &[found], &expected, &expected, bound);
        }
    }
}

/// The trainer's state as tensors.
fn state<B: TrainingOps>(trainer: &Trainer<'_, B>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    trainer.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

/// The gradients of the first step, from Adam's first moment: m = (1 - β₁) g min(1, clip/(norm + 1e-6)).
///
/// The same vector added to all keys changes no softmax: the gradient of the keys' bias is zero, what either side finds is
/// rounding, and the gradient of the keys' weight gives the scale.
fn check_gradients<B: TrainingOps>(golden: &Golden, backend: &B, bound: f64) {
    let (data, tensors) = (golden.data(), golden.tensors());
    let mut trainer = golden.trainer(backend, &data);
    let report = trainer.step(&data, RUN).unwrap();
    golden.check_report(&report, bound);
    let clip = (golden.settings.clip / (report.gradient_norm + 1e-6)).min(1.0);
    assert!(clip < 1.0, "the golden step is to clip");
    let state = state(&trainer);
    let state = SafeTensors::deserialize(&state).unwrap();
    for spec in golden.checkpoint.metadata().layout().specs() {
        let name = format!("0.grad.{}", spec.name);
        let found: Vec<f64> = values(&state, &format!("m.{}", spec.name)).iter().map(|m| m / (0.1 * clip)).collect();
        let scale = values(&tensors, &name.replace(".k.bias", ".k.weight"));
        check(&name, &found, &values(&tensors, &name), &scale, bound);
    }
}

#[test]
fn the_reference_trains_as_pytorch() {
    // f64 has 1e-16; the steps are twenty layers each, whose sums of a few hundred terms stay far below 1e-9
    const BOUND: f64 = 1e-9;
    for name in ["unet-patch", "mlp"] {
        let (golden, backend) = (Golden::read(name), Reference::new());
        check_gradients(&golden, &backend, BOUND);
        let data = golden.data();
        let mut trainer = golden.trainer(&backend, &data);
        for _ in 0..STEPS {
            let report = trainer.step(&data, RUN).unwrap();
            golden.check_report(&report, BOUND);
        }
        let (state, tensors) = (state(&trainer), golden.tensors());
        let state = SafeTensors::deserialize(&state).unwrap();
        for spec in golden.checkpoint.metadata().layout().specs() {
            for set in ["weights", "average", "m", "v"] {
                let name = format!("{set}.{}", spec.name);
                let expected = values(&tensors, &name);
                let scale = values(&tensors, &name.replace(".k.bias", ".k.weight"));
                check(&name, &values(&state, &name), &expected, &scale, BOUND);
            }
        }
    }
}

#[test]
fn the_cpu_finds_the_gradients_of_pytorch() {
    // f32 has 6e-8; twenty layers of a few roundings each, amplified by the norms, stay below the project's 1e-4
    for threads in [1, 2] {
        let cpu = Cpu::new(Options { threads, poison: true, ..Options::default() }).unwrap();
        assert_eq!(cpu.name(), "cpu");
        for name in ["unet-patch", "mlp"] {
            check_gradients(&Golden::read(name), &cpu, 1e-4);
        }
    }
}
