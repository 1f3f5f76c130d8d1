//! The trainer: its loss falls, its gradient is that of finite differences, it has the same bits for any number of threads and
//! after being stopped, and it refuses what cannot be learned from.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Keep, Shape};
use diem::data::checkpoint::{Kind, Metadata};
use diem::data::{Checkpoint, Samples};
use diem::diffusion::{Denoiser, Gaussian, Model};
use diem::nn::{MlpConfig, UNetConfig};
use diem::ops::TrainingOps;
use diem::ops::noise::{Purpose, Stream};
use diem::train::{Augmentation, Data, Initial, Schedule, Settings, Trainer};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::path::Path;

const RUN: Stream = Stream { seed: 9, purpose: Purpose::Test, step: 0, correction: 0, iteration: 3, epoch: 0 };

/// A network, and samples for it.
struct Task {
    metadata: Metadata,
    image: Shape,
}

/// Two levels, attention on the lower one.
fn unet() -> Task {
    let (channels, blocks, heads) = (vec![16, 16], vec![1, 1], vec![0, 2]);
    let config = UNetConfig { in_channels: 3, out_channels: 3, channels, blocks, heads, emb: 8, patch: 1 };
    Task { metadata: Metadata::new(Kind::UNet(config)), image: Shape::new(1, 8, 8, 3) }
}

fn mlp() -> Task {
    let config = MlpConfig { features: 5, hidden: vec![24, 16], emb: 8 };
    let metadata = Metadata { sigma_max: 1e1, ..Metadata::new(Kind::Mlp(config)) };
    Task { metadata, image: Shape::rows(1, 5) }
}

impl Task {
    fn settings(&self) -> Settings {
        let augmentation = if self.image.pixels() > 1 {
            Augmentation { flip: true, hue: 0.02, saturation: 0.1, shift: 2 }
        } else {
            Augmentation::default()
        };
        Settings { batch: 6, micro_batch: 4, lr: 2e-3, ema: 0.9, augmentation, ..Settings::default() }
    }
    /// Smooth samples: each a random sinusoid.
    fn data(&self, count: usize) -> Data {
        let shape = self.image.with_n(count);
        let row = |n: usize| {
            let [a, b, c, _] = Stream::new(1, Purpose::Test).normals(n as u32, 0);
            (0..shape.row()).map(move |i| (1.5 * (a + 0.1 * b * i as f64).sin() * c.cos()) as f32)
        };
        Data::new(Samples::new(shape, (0..count).flat_map(row).collect()))
    }
    fn trainer<'a, B: TrainingOps>(&self, backend: &'a B, settings: Settings, total: u64) -> Trainer<'a, B> {
        Trainer::new(backend, &self.metadata, self.image, settings, Initial::Seed(4), total).unwrap()
    }
}

/// The state after some steps, as bytes.
fn state<B: TrainingOps>(trainer: &Trainer<'_, B>) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    trainer.save(&path).unwrap();
    std::fs::read(path).unwrap()
}

#[test]
fn one_step_lowers_the_loss_of_its_samples() {
    fn check<B: TrainingOps>(backend: &B, task: &Task) {
        let data = task.data(6);
        let settings = Settings { ema: 0.0, dropout: 0.0, augmentation: Augmentation::default(), ..task.settings() };
        let mut trainer = task.trainer(backend, settings, 10);
        let before = trainer.held_out_loss(&data, RUN).unwrap();
        let report = trainer.step(&data, RUN).unwrap();
        let after = trainer.held_out_loss(&data, RUN).unwrap();
        assert!(report.loss.is_finite() && report.gradient_norm > 0.0, "{report:?}");
        assert!(after < before, "{before} to {after}");
    }
    for task in [unet(), mlp()] {
        check(&Reference::new(), &task);
        check(&Cpu::new(Options { poison: true, ..Options::default() }).unwrap(), &task);
    }
}

#[test]
fn many_steps_learn() {
    let (task, cpu) = (mlp(), Cpu::new(Options::default()).unwrap());
    let (data, held_out) = (task.data(256), task.data(300));
    let settings = Settings { batch: 64, ema: 0.99, dropout: 0.0, lr: 3e-3, ..task.settings() };
    let mut trainer = task.trainer(&cpu, settings, 400);
    let before = trainer.held_out_loss(&held_out, RUN).unwrap();
    for _ in 0..400 {
        trainer.step(&data, RUN).unwrap();
    }
    let after = trainer.held_out_loss(&held_out, RUN).unwrap();
    assert!(after < 0.6 * before, "{before} to {after}");
}

/// A state whose weights moved by `h` in direction `u`, at step 0.
fn moved(state: &[u8], u: &HashMap<String, Vec<f64>>, h: f64) -> Vec<u8> {
    let (_, info) = SafeTensors::read_metadata(state).unwrap();
    let tensors = SafeTensors::deserialize(state).unwrap();
    let values = tensors.iter().map(|(name, tensor)| {
        let mut x = doubles(&tensor);
        if let Some(u) = name.strip_prefix("weights.").and_then(|name| u.get(name)) {
            x.iter_mut().zip(u).for_each(|(x, u)| *x += h * u);
        }
        (name.to_owned(), tensor.shape().to_vec(), x.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    });
    let values: Vec<_> = values.collect();
    let views = values.iter().map(|(name, dims, x)| (name, TensorView::new(Dtype::F64, dims.clone(), x).unwrap()));
    safetensors::serialize(views, info.metadata().clone()).unwrap()
}

fn doubles(tensor: &TensorView<'_>) -> Vec<f64> {
    tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// The loss of a step with its own noise, dropout and augmentation, as a function of the weights. Adam's first moment is
/// (1 - β₁) times the gradient after the first step.
#[test]
fn the_gradient_of_a_step_is_that_of_finite_differences() {
    for task in [unet(), mlp()] {
        let (backend, data) = (Reference::new(), task.data(9));
        let settings = Settings { clip: 0.0, dropout: 0.3, ..task.settings() };
        let start = state(&task.trainer(&backend, settings.clone(), 10));
        let mut trainer = task.trainer(&backend, settings.clone(), 10);
        trainer.step(&data, RUN).unwrap();
        let stepped = state(&trainer);
        let tensors = SafeTensors::deserialize(&stepped).unwrap();
        let layout = task.metadata.layout();
        let direction = |i: usize, len: usize| {
            let stream = Stream::new(2, Purpose::Test);
            (0..).flat_map(|block| stream.normals(i as u32, block)).take(len).collect::<Vec<f64>>()
        };
        let u: HashMap<String, Vec<f64>> =
            layout.specs().iter().enumerate().map(|(i, spec)| (spec.name.clone(), direction(i, spec.len()))).collect();
        let gradient = |name: &String| doubles(&tensors.tensor(&format!("m.{name}")).unwrap());
        let slope: f64 =
            u.iter().map(|(name, u)| u.iter().zip(gradient(name)).map(|(u, m)| u * m / 0.1).sum::<f64>()).sum();

        let folder = tempfile::tempdir().unwrap();
        let loss = |h: f64| {
            let path = folder.path().join("moved.safetensors");
            std::fs::write(&path, moved(&start, &u, h)).unwrap();
            let mut trainer = task.trainer(&backend, settings.clone(), 10);
            trainer.load(&path).unwrap();
            trainer.step(&data, RUN).unwrap().loss
        };
        let h = 1e-5;
        let difference = (loss(h) - loss(-h)) / (2.0 * h);
        // h² of the third derivative, and 1e-16/h of the loss
        assert!((difference - slope).abs() <= 1e-6 * slope.abs(), "{difference} {slope}");
    }
}

#[test]
fn micro_batches_add_up_to_the_batch() {
    let (task, backend) = (unet(), Reference::new());
    let data = task.data(6);
    let report = |micro_batch: usize| {
        let settings = Settings { micro_batch, ..task.settings() };
        task.trainer(&backend, settings, 10).step(&data, RUN).unwrap()
    };
    let (whole, parts) = (report(6), report(4));
    // sums in another order
    assert!((whole.loss - parts.loss).abs() < 1e-12 * whole.loss);
    assert!((whole.gradient_norm - parts.gradient_norm).abs() < 1e-12 * whole.gradient_norm);
}

#[test]
fn threads_and_interruptions_change_no_bit() {
    for task in [unet(), mlp()] {
        let data = task.data(15); // two steps an epoch, three samples left out
        let run = |threads: usize, stop: Option<u64>| {
            let cpu = Cpu::new(Options { threads, ..Options::default() }).unwrap();
            let settings = Settings { schedule: Schedule::Exponential, warmup: 2, ..task.settings() };
            let mut trainer = task.trainer(&cpu, settings.clone(), 6);
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.safetensors");
            for step in 0..6 {
                if stop == Some(step) {
                    trainer.save(&path).unwrap();
                    trainer = task.trainer(&cpu, settings.clone(), 6);
                    trainer.load(&path).unwrap();
                    assert_eq!(trainer.steps(), step);
                }
                let report = trainer.step(&data, RUN).unwrap();
                assert_eq!((report.step, report.epoch), (step, step / 2));
            }
            state(&trainer)
        };
        let expected = run(1, None);
        for (threads, stop) in [(2, None), (3, Some(1)), (2, Some(3)), (1, Some(5))] {
            assert!(run(threads, stop) == expected, "{threads} threads, stopped at {stop:?}");
        }
    }
}

#[test]
fn laps_epochs_and_samples_have_numbers_of_their_own() {
    let (task, cpu) = (mlp(), Cpu::new(Options::default()).unwrap());
    let data = task.data(6);
    let loss = |run: Stream| task.trainer(&cpu, task.settings(), 4).step(&data, run).unwrap().loss;
    assert_eq!(loss(RUN), loss(RUN));
    assert_ne!(loss(RUN), loss(Stream { iteration: 4, ..RUN }));
    assert_ne!(loss(RUN), loss(Stream { seed: 10, ..RUN }));
    let mut trainer = task.trainer(&cpu, Settings { lr: 1e-300, ..task.settings() }, 4);
    let losses: Vec<f64> = (0..3).map(|_| trainer.step(&data, RUN).unwrap().loss).collect();
    assert!(losses[0] != losses[1] && losses[1] != losses[2], "{losses:?}");
}

#[test]
fn the_next_lap_starts_from_the_average() {
    let (task, cpu) = (mlp(), Cpu::new(Options::default()).unwrap());
    let data = task.data(6);
    let mut trainer = task.trainer(&cpu, task.settings(), 4);
    for _ in 0..3 {
        trainer.step(&data, RUN).unwrap();
    }
    let average = trainer.held_out_loss(&data, RUN).unwrap();
    trainer.restart();
    assert_eq!(trainer.steps(), 0);
    let restarted = state(&trainer);
    let tensors = SafeTensors::deserialize(&restarted).unwrap();
    for (name, tensor) in tensors.iter() {
        match name.split_once('.').unwrap() {
            ("weights", rest) => {
                assert_eq!(tensor.data(), tensors.tensor(&format!("average.{rest}")).unwrap().data(), "{name}");
            }
            ("m" | "v", _) => assert!(tensor.data().iter().all(|b| *b == 0), "{name}"),
            _ => {}
        }
    }
    assert_eq!(trainer.held_out_loss(&data, RUN).unwrap(), average);
}

#[test]
fn a_checkpoint_is_the_model() {
    let (task, cpu) = (unet(), Cpu::new(Options::default()).unwrap());
    let data = task.data(6);
    let mut trainer = task.trainer(&cpu, task.settings(), 4);
    trainer.step(&data, RUN).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let d = task.image.row();
    let gaussian = Gaussian::new(vec![0.25; d], vec![0.5; d], vec![0.125; 2 * d]).unwrap();
    trainer.write_checkpoint(&path, Some(&gaussian)).unwrap();
    trainer.write_checkpoint(&path, Some(&gaussian)).unwrap();
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata(), &task.metadata);
    let model = Model::load(&cpu, &checkpoint, task.image, false).unwrap();
    assert_eq!(model.prior(), Some(&gaussian));

    let continued = Initial::Checkpoint(&checkpoint);
    let continued = Trainer::new(&cpu, &task.metadata, task.image, task.settings(), continued, 4).unwrap();
    let loss = trainer.held_out_loss(&data, RUN).unwrap();
    assert_eq!(continued.held_out_loss(&data, RUN).unwrap(), loss);
    let condition = model.condition(&cpu, &[0.5], Keep::Nothing);
    let x = diem::backend::Backend::upload(&cpu, task.image, data.row(0));
    assert!(model.forward(&cpu, &x, &condition, Keep::Nothing).0.iter().all(|x| x.is_finite()));
    let other = mlp();
    let refused =
        Trainer::new(&cpu, &other.metadata, other.image, other.settings(), Initial::Checkpoint(&checkpoint), 4);
    assert!(refused.err().unwrap().to_string().contains("model.safetensors: expected Mlp"));
}

#[test]
fn a_value_that_is_not_finite_names_layer_sample_and_step() {
    let (task, cpu) = (unet(), Cpu::new(Options::default()).unwrap());
    let mut trainer = task.trainer(&cpu, task.settings(), 4);
    let good = task.data(6);
    trainer.step(&good, RUN).unwrap();
    let before = state(&trainer);
    let mut values: Vec<f32> = (0..6).flat_map(|n| good.row(n)).copied().collect();
    values[4 * task.image.row() + 7] = f32::NAN;
    let mut bad = Data::new(Samples::new(task.image.with_n(6), values));
    let error = trainer.step(&bad, RUN).unwrap_err().to_string();
    assert_eq!(error, "non-finite value in layer input, sample 4, training step 1, epoch 1, lap 3");
    assert!(state(&trainer) == before, "the weights changed");
    assert!(trainer.held_out_loss(&bad, RUN).unwrap_err().to_string().contains("held-out sample 4"));

    // without such draws training goes on
    assert_eq!(bad.retain(|row| row.iter().all(|x| x.is_finite())), 1);
    assert_eq!(bad.len(), 5);
    assert_eq!(bad.row(4), good.row(5));
    let expected = "batch: expected at most 5, the samples that there are, found 6";
    assert_eq!(trainer.step(&bad, RUN).unwrap_err().to_string(), expected);

    // a layer whose weights overflow
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let (_, info) = SafeTensors::read_metadata(&before).unwrap();
    let tensors = SafeTensors::deserialize(&before).unwrap();
    let huge = |name: &str, x: &[u8]| match name {
        "weights.down.1.res.0.conv2.weight" => 1e38f32.to_le_bytes().repeat(x.len() / 4),
        _ => x.to_vec(),
    };
    let values: Vec<_> = tensors.iter().map(|(name, x)| (name, x.shape().to_vec(), huge(name, x.data()))).collect();
    let views = values.iter().map(|(name, dims, x)| (name, TensorView::new(Dtype::F32, dims.clone(), x).unwrap()));
    std::fs::write(&path, safetensors::serialize(views, info.metadata().clone()).unwrap()).unwrap();
    trainer.load(&path).unwrap();
    let error = trainer.step(&good, RUN).unwrap_err().to_string();
    assert!(error.starts_with("non-finite value in layer down.1.res.0, sample "), "{error}");
}

#[test]
fn the_state_of_another_run_is_refused() {
    let (task, cpu) = (mlp(), Cpu::new(Options::default()).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    task.trainer(&cpu, task.settings(), 4).save(&path).unwrap();
    let refused = |settings: Settings, total: u64, path: &Path| {
        task.trainer(&cpu, settings, total).load(path).unwrap_err().to_string()
    };
    assert!(refused(task.settings(), 5, &path).ends_with("expected steps 5, found steps 4"));
    assert!(refused(Settings { lr: 1.0, ..task.settings() }, 4, &path).contains("expected settings {"));
    let other = unet();
    let error = other.trainer(&cpu, other.settings(), 4).load(&path).unwrap_err().to_string();
    assert!(error.contains("belongs to another run: expected model"), "{error}");
    std::fs::write(&path, b"no state").unwrap();
    assert!(refused(task.settings(), 4, &path).contains("expected the state of a training run"));
}

#[test]
fn settings_have_defaults_and_no_unknown_entries() {
    assert_eq!(serde_json::from_str::<Settings>("{}").unwrap(), Settings::default());
    let settings = Settings { schedule: Schedule::Exponential, ..Settings::paper("mri").unwrap() };
    assert_eq!(serde_json::from_str::<Settings>(&serde_json::to_string(&settings).unwrap()).unwrap(), settings);
    for unknown in [r#"{"learning_rate": 1}"#, r#"{"augmentation": {"flipped": true}}"#, r#"{"schedule": "cosine"}"#] {
        assert!(serde_json::from_str::<Settings>(unknown).is_err(), "{unknown}");
    }
    let image = Shape::new(1, 8, 8, 3);
    for (name, wrong) in [
        ("batch", Settings { batch: 0, ..Settings::default() }),
        ("lr", Settings { lr: f64::NAN, ..Settings::default() }),
        ("clip", Settings { clip: f64::INFINITY, ..Settings::default() }),
        ("ema", Settings { ema: 1.0, ..Settings::default() }),
        ("dropout", Settings { dropout: -0.1, ..Settings::default() }),
        ("weight_decay", Settings { weight_decay: f64::INFINITY, ..Settings::default() }),
    ] {
        let error = wrong.validate(image).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{name}: expected ")), "{error}");
    }
    for experiment in ["cifar", "mri", "manifold"] {
        Settings::paper(experiment).unwrap().validate(image).unwrap();
    }
}

#[test]
fn data_stays_in_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("samples.npy");
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    diem::data::npy::write(&path, &diem::data::Array::f32(&[4, 2, 3, 1], values.clone())).unwrap();
    let mut data = Data::open(&path).unwrap();
    assert_eq!((data.image(), data.len(), data.row(2)), (Shape::new(1, 2, 3, 1), 4, &values[12..18]));
    assert_eq!(data.retain(|row| row[0] != 6.0), 1);
    let held_out = data.split_off(1);
    assert_eq!((data.len(), data.row(1), held_out.len(), held_out.row(0)), (2, &values[12..18], 1, &values[18..24]));
    std::fs::write(&path, b"nothing").unwrap();
    assert!(Data::open(&path).is_err());
    // a header of 69 bytes: the numbers would not be aligned
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1), }";
    let length = (header.len() as u16).to_le_bytes();
    let file = [&b"\x93NUMPY\x01\x00"[..], &length[..], header.as_bytes(), &[0; 4]].concat();
    std::fs::write(&path, file).unwrap();
    assert!(Data::open(&path).err().unwrap().to_string().contains("a multiple of 4 bytes"));
}
