//! Whole networks on the emulated device against the reference: values, VJPs and parameter gradients, in f32 and bf16.

use crate::harness::{Input, agree_under, schedules};
use diem::backend::cuda::Dtype;
use diem::backend::{Keep, Shape};
use diem::nn::{Grads, Layout, Mlp, MlpConfig, Network, ParamId, UNet, UNetConfig};
use diem::ops::Ops;

/// The bounds of the project for a network (DESIGN, section 5): some 30 layers in a row, each off by 1e-6 or 3e-3.
const TYPES: [(Dtype, f64); 2] = [(Dtype::F32, 1e-4), (Dtype::Bf16, 3e-2)];
const BATCH: usize = 2;

/// A network that any backend can be given.
trait Config: Sync {
    fn layout(&self) -> Layout;
    /// Of one sample.
    fn image(&self) -> Shape;
    /// Network from parameters, then (y, dx, gradients).
    fn run<B: Ops>(&self, b: &B, x: &[B::Tensor], log_sigma: &[f64]) -> Vec<B::Tensor>;
}

struct Images(UNetConfig, Shape);

impl Config for Images {
    fn layout(&self) -> Layout {
        self.0.layout()
    }
    fn image(&self) -> Shape {
        self.1
    }
    fn run<B: Ops>(&self, b: &B, x: &[B::Tensor], log_sigma: &[f64]) -> Vec<B::Tensor> {
        let network = UNet::new(b, &self.0, (self.1.h, self.1.w), true, |id| &x[2 + id.index()]);
        run(b, &network, &self.0.layout(), x, log_sigma)
    }
}

impl Config for MlpConfig {
    fn layout(&self) -> Layout {
        self.layout()
    }
    fn image(&self) -> Shape {
        Shape::rows(1, self.features)
    }
    fn run<B: Ops>(&self, b: &B, x: &[B::Tensor], log_sigma: &[f64]) -> Vec<B::Tensor> {
        let network = Mlp::new(b, self, |id| &x[2 + id.index()]);
        run(b, &network, &self.layout(), x, log_sigma)
    }
}

/// y, the VJP of x[1] at x[0], and all parameter gradients, one after the other.
fn run<B: Ops>(
    b: &B,
    network: &impl Network<B>,
    layout: &Layout,
    x: &[B::Tensor],
    log_sigma: &[f64],
) -> Vec<B::Tensor> {
    let condition = network.condition(b, log_sigma, Keep::All);
    let (y, saved) = network.forward(b, &x[0], &condition, Keep::All);
    let saved = saved.expect("kept");
    let dx = network.vjp(b, &condition, &saved, &x[1]);
    let mut grads = Grads::zeros(b, layout);
    let also_dx = network.vjp_params(b, &condition, &saved, &x[1], &mut grads);
    let mut all = b.zeros(Shape::flat(1));
    layout.ids().for_each(|id| all = b.concat_forward(&all, &grads[id]));
    vec![y, dx, also_dx, all]
}

/// x, dy, then the parameters as after training: none is zero.
fn inputs(config: &impl Config, dtype: Dtype) -> Vec<Input> {
    let image = config.image().with_n(BATCH);
    let layout = config.layout();
    let weight = |id: ParamId| {
        let spec = &layout[id];
        let scale = 1.0 / (spec.dims[1..].iter().product::<usize>() as f64).sqrt().max(3.0);
        let x = Input::f32(Shape::flat(spec.len()), 10 + id.index());
        // Weights that both types represent: what is compared is the arithmetic.
        Input { dtype: Dtype::F32, ..Input::new(x.shape, Dtype::Bf16, x.values.iter().map(|x| scale * x)) }
    };
    let arrays = [Input::normal(image, dtype, 0), Input::normal(image, dtype, 1)];
    arrays.into_iter().chain(layout.ids().map(weight)).collect()
}

/// Noise levels of each sample in one type, a shared one in the other: both are f32 to the network.
fn check(config: &impl Config) {
    const OWN: [f64; BATCH] = [-2.3, 1.4];
    for ((dtype, bound), log_sigma) in TYPES.into_iter().zip([&OWN[..], &OWN[1..]]) {
        // A network has hundreds of launches, whose kernels have tests under every schedule: three will do.
        let configs = schedules().step_by(7);
        let error = agree_under(
            configs,
            &inputs(config, dtype),
            dtype,
            bound,
            |b, x| config.run(b, x, log_sigma),
            |b, x| config.run(b, x, log_sigma),
        );
        println!("{dtype:?}: {error:.1e}");
    }
}

/// Two levels, attention with two heads of 16 channels: 16-byte accesses everywhere.
#[test]
fn unet() {
    let (channels, blocks, heads) = (vec![16, 32], vec![1, 1], vec![0, 2]);
    let config = UNetConfig { in_channels: 3, out_channels: 3, channels, blocks, heads, emb: 16, patch: 1 };
    check(&Images(config, Shape::new(1, 8, 8, 3)));
}

/// Three levels of odd widths, folded pixels, attention with heads of 7 channels, an empty level.
#[test]
fn unet_of_odd_widths() {
    let (channels, blocks, heads) = (vec![9, 21, 5], vec![1, 1, 0], vec![0, 3, 0]);
    let config = UNetConfig { in_channels: 1, out_channels: 1, channels, blocks, heads, emb: 10, patch: 2 };
    check(&Images(config, Shape::new(1, 8, 16, 1)));
}

#[test]
fn mlp() {
    check(&MlpConfig { features: 5, hidden: vec![24, 17], emb: 8 });
}
