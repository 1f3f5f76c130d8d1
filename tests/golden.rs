//! Networks against PyTorch: tests/golden was written by tools/golden.py, in float64.

use diem::backend::cpu::simd::Isa;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Keep, Shape};
use diem::data::Checkpoint;
use diem::data::checkpoint::Kind;
use diem::diffusion::Denoiser;
use diem::diffusion::denoiser::Preconditioned;
use diem::nn::{Grads, Layout, Mlp, Network, Params, UNet};
use diem::ops::Ops;
use safetensors::SafeTensors;
use std::path::PathBuf;
use std::sync::Arc;

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// What PyTorch computed.
struct Expected(Vec<u8>);

impl Expected {
    /// A float64 array and its extents; vectors (N, D) are (N, 1, 1, D).
    fn array(&self, name: &str) -> (Shape, Vec<f64>) {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let tensor = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values: Vec<f64> =
            tensor.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect();
        let shape = match *tensor.shape() {
            [n, h, w, c] => Shape::new(n, h, w, c),
            [n, d] => Shape::rows(n, d),
            _ => Shape::flat(values.len()),
        };
        (shape, values)
    }

    /// |found - expected| <= bound |expected|, in the Euclidean norm.
    ///
    /// The same vector added to all keys changes no softmax: the gradient of the keys' bias is zero, what either side
    /// finds is rounding, and the gradient of the keys' weight gives the scale.
    fn check(&self, name: &str, found: &[f64], bound: f64) {
        let (_, expected) = self.array(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        assert!(found.iter().all(|v| v.is_finite()), "{name} is not finite");
        let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|v| v * v).sum::<f64>().sqrt();
        let (_, scale) = self.array(&name.replace(".k.bias", ".k.weight"));
        let error = norm(&mut found.iter().zip(&expected).map(|(a, b)| a - b)) / norm(&mut scale.into_iter());
        assert!(error <= bound, "{name}: relative error {error:.1e} above {bound:.0e}");
    }
}

/// Value, denoiser, input VJP and parameter gradients of <u, d>, for noise levels per sample and a shared one.
fn check_network<B: Ops>(backend: &B, network: impl Network<B>, layout: &Layout, expected: &Expected, bound: f64) {
    let (shape, x) = expected.array("x");
    let x = backend.upload(shape, &x);
    let u = backend.upload(shape, &expected.array("u").1);
    let sigma = expected.array("sigma").1;
    let denoiser = Preconditioned(network);
    for (case, sigma) in [("each", &sigma[..]), ("shared", &sigma[..1])] {
        let check = |name: &str, found: &B::Tensor| {
            expected.check(&format!("{case}.{name}"), &backend.to_vec(found).unwrap(), bound);
        };
        for keep in [Keep::Nothing, Keep::Input, Keep::All] {
            let condition = denoiser.condition(backend, sigma, keep);
            let (value, saved) = denoiser.forward(backend, &x, &condition, keep);
            check("denoised", &value);
            assert_eq!(saved.is_some(), keep != Keep::Nothing);
            if let Some(saved) = saved {
                check("vjp", &denoiser.vjp(backend, &condition, &saved, &u));
            }
        }
        let condition = denoiser.condition(backend, sigma, Keep::All);
        let input = backend.precondition_input(&x, sigma);
        let (value, saved) = denoiser.0.forward(backend, &input, &condition.network, Keep::All);
        check("network", &value);
        let dy = backend.precondition_output_vjp(&u, sigma);
        let mut grads = Grads::zeros(backend, layout);
        let dg = denoiser.0.vjp_params(backend, &condition.network, &saved.expect("all was kept"), &dy, &mut grads);
        check("vjp", &backend.precondition_vjp(&u, &dg, sigma));
        for id in layout.ids() {
            check(&format!("grad.{}", layout[id].name), &grads[id]);
        }
    }
}

fn check_golden<B: Ops>(backend: &B, name: &str, bound: f64) {
    let checkpoint = Checkpoint::open(&file(&format!("{name}.safetensors"))).unwrap();
    let expected = Expected(std::fs::read(file(&format!("{name}.expected.safetensors"))).unwrap());
    let layout = Arc::new(checkpoint.metadata().layout());
    let params = Params::<B>::new(layout.clone(), |id| checkpoint.parameter(backend, &layout[id]));
    let values = |id| &params[id];
    match &checkpoint.metadata().kind {
        Kind::UNet(config) => {
            let shape = expected.array("x").0;
            let network = UNet::new(backend, config, (shape.h, shape.w), true, values);
            check_network(backend, network, &layout, &expected, bound);
        }
        Kind::Mlp(config) => check_network(backend, Mlp::new(backend, config, values), &layout, &expected, bound),
        Kind::Gaussian { .. } => panic!("no golden file is one"),
    }
}

const NAMES: [&str; 3] = ["unet-levels", "unet-patch", "mlp"];
// f64 has 1e-16; sums of a few hundred terms, through 20 layers and their norms, stay far below 1e-9
const REFERENCE: f64 = 1e-9;
// f32 has 6e-8; twenty layers of a few roundings each, amplified by the norms, stay below the project's 1e-4
const CPU: f64 = 1e-4;

#[test]
fn reference_agrees_with_pytorch() {
    for name in NAMES {
        check_golden(&Reference::new(), name, REFERENCE);
    }
}

#[test]
fn cpu_agrees_with_pytorch() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        for low_memory in [false, true] {
            let options = Options { threads: 2, isa, low_memory, poison: true };
            let cpu = Cpu::new(options).unwrap();
            for name in NAMES {
                check_golden(&cpu, name, CPU);
            }
        }
    }
}
