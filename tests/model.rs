//! Models on the CPU: networks trained in PyTorch and by this project denoise, and each sample has its own bits.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::{Array, Backend, Keep, Shape};
use diem::data::npy;
use diem::data::{Checkpoint, DType};
use diem::diffusion::{Denoiser, Model};
use diem::nn::UNetConfig;
use diem::ops::Vector;
use diem::ops::noise::{Noise, Purpose, Stream};
use std::path::Path;

fn open(name: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn cpu() -> Cpu {
    Cpu::new(Options { threads: 2, poison: true, ..Options::default() }).unwrap()
}

/// The first four test images that ship with the project.
fn images(backend: &Cpu) -> <Cpu as Backend>::Tensor {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-test.npy");
    let shape = Shape::new(4, 32, 32, 1);
    backend.upload(shape, &npy::read(&path, &[DType::F32]).unwrap().data.into_f32()[..shape.len()])
}

/// RMSE of what `denoiser` makes of the images and noise of standard deviation `sigma`.
fn rmse(backend: &Cpu, denoiser: &impl Denoiser<Cpu>, sigma: f64) -> f64 {
    let clean = images(backend);
    let noise = backend.noise_normal(clean.shape(), Stream::new(1, Purpose::Test), &[0, 1, 2, 3]);
    let x_t = backend.linear_combination(&[(1.0, &clean), (sigma, &noise)]);
    let condition = denoiser.condition(backend, &[sigma], Keep::Nothing);
    let (x_hat, _) = denoiser.forward(backend, &x_t, &condition, Keep::Nothing);
    let error = backend.to_vec(&backend.linear_combination(&[(1.0, &x_hat), (-1.0, &clean)])).unwrap();
    (error.iter().map(|e| e * e).sum::<f64>() / error.len() as f64).sqrt()
}

#[test]
fn a_network_trained_in_pytorch_denoises() {
    let backend = cpu();
    let checkpoint = open("tests/golden/fashion-small.safetensors");
    let model = Model::load(&backend, &checkpoint, Shape::new(4, 32, 32, 1), false).unwrap();
    for sigma in [0.1, 0.5, 2.0] {
        let rmse = rmse(&backend, &model, sigma);
        // at least half of the noise is gone, where a wrong network adds its own: the images' deviation is 1.3
        assert!(rmse < sigma / 2.0, "RMSE {rmse} at noise {sigma}");
    }
}

#[test]
fn the_shipped_network_denoises_better_than_the_gaussian_of_the_draws_that_it_learned_from() {
    let backend = cpu();
    let model = Model::load(&backend, &open("assets/fashion-75.safetensors"), Shape::new(4, 32, 32, 1), false).unwrap();
    let gaussian = model.prior().expect("a lap's checkpoint has the PPCA of the draws before");
    for sigma in [0.1, 0.5, 2.0] {
        let [learned, gaussian] = [rmse(&backend, &model, sigma), rmse(&backend, gaussian, sigma)];
        assert!(learned < gaussian, "RMSE {learned} at noise {sigma}, the Gaussian's {gaussian}");
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
