//! Models on the CPU: the network that ships with the project denoises, and each sample has its own bits.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::{Array, Backend, Keep, Shape};
use diem::data::npy;
use diem::data::{Checkpoint, DType};
use diem::diffusion::{Denoiser, Model};
use diem::nn::UNetConfig;
use diem::ops::Vector;
use diem::ops::noise::{Noise, Purpose, Stream};
use std::path::Path;

fn asset(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join(name)
}

fn cpu() -> Cpu {
    Cpu::new(Options { threads: 2, poison: true, ..Options::default() }).unwrap()
}

#[test]
fn the_shipped_network_denoises() {
    let backend = cpu();
    let images = npy::read(&asset("fashion-test.npy"), &[DType::F32]).unwrap();
    let n = 4;
    let shape = Shape::new(n, 32, 32, 1);
    let x = images.data.into_f32()[..shape.len()].to_vec();
    let model = Checkpoint::open(&asset("fashion-small.safetensors"))
        .and_then(|checkpoint| Model::load(&backend, &checkpoint, shape, false))
        .unwrap();
    let clean = backend.upload(shape, &x);
    let noise = backend.noise_normal(shape, Stream::new(1, Purpose::Test), &[0, 1, 2, 3]);
    for sigma in [0.1, 0.5, 2.0] {
        let x_t = backend.linear_combination(&[(1.0, &clean), (sigma, &noise)]);
        let condition = model.condition(&backend, &[sigma], Keep::Nothing);
        let (x_hat, _) = model.forward(&backend, &x_t, &condition, Keep::Nothing);
        let error = backend.linear_combination(&[(1.0, &x_hat), (-1.0, &clean)]);
        let squares = backend.to_vec(&error).unwrap().iter().map(|e| e * e).sum::<f64>();
        let rmse = (squares / shape.len() as f64).sqrt();
        // at least half of the noise is gone, where a wrong network adds its own: the images' deviation is 1.3
        assert!(rmse < sigma / 2.0, "RMSE {rmse} at noise {sigma}");
    }
}

/// Value and VJP of samples `index` of a fixed batch.
fn run(backend: &Cpu, model: &Model<Cpu>, index: &[u32]) -> Vec<Vec<f64>> {
    let shape = Shape::new(index.len(), 16, 16, 3);
    let [x, u] = [1, 2].map(|seed| backend.noise_normal(shape, Stream::new(seed, Purpose::Test), index));
    let condition = model.condition(backend, &[0.4], Keep::Input);
    let (y, saved) = model.forward(backend, &x, &condition, Keep::Input);
    let dx = model.vjp(backend, &condition, &saved.unwrap(), &u);
    let (alone, _) = model.forward(backend, &x, &condition, Keep::Nothing);
    assert_eq!(backend.to_vec(&alone).unwrap(), backend.to_vec(&y).unwrap(), "what is kept changes no bit");
    let (y, dx) = (backend.to_vec(&y).unwrap(), backend.to_vec(&dx).unwrap());
    let rows = y.chunks(shape.row()).zip(dx.chunks(shape.row()));
    rows.map(|(y, dx)| [y, dx].concat()).collect()
}

#[test]
fn a_sample_has_the_same_bits_in_any_batch() {
    let image = Shape::new(1, 16, 16, 3);
    let backend = cpu();
    let model = Model::initial(&backend, UNetConfig::preset("small").unwrap(), image, true, 7).unwrap();
    let together = run(&backend, &model, &[0, 1, 2, 3, 4]);
    assert!(together.iter().flatten().all(|v| v.is_finite()));
    assert_eq!(run(&backend, &model, &[4, 2]), [together[4].clone(), together[2].clone()]);
    for (n, expected) in together.iter().enumerate() {
        assert_eq!(&run(&backend, &model, &[n as u32])[0], expected, "sample {n}");
    }
}

#[test]
fn a_model_without_vjp_has_the_same_value_and_less_memory() {
    let image = Shape::new(2, 16, 16, 3);
    let value = |vjp| {
        let backend = cpu();
        let model = Model::initial(&backend, UNetConfig::preset("small").unwrap(), image, vjp, 7).unwrap();
        let live = backend.memory().live;
        let x = backend.noise_normal(image, Stream::new(3, Purpose::Test), &[0, 1]);
        let condition = model.condition(&backend, &[0.4], Keep::Nothing);
        let (y, _) = model.forward(&backend, &x, &condition, Keep::Nothing);
        assert_eq!(y.shape(), image);
        (backend.to_vec(&y).unwrap(), live)
    };
    let ((full, full_memory), (forward, memory)) = (value(true), value(false));
    assert_eq!(full, forward);
    assert!(memory * 5 < full_memory * 4, "{memory} of {full_memory} bytes");
}
