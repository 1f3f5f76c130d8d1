//! Whole networks: the U-Net and the MLP.

use super::extents;
use super::norm::noise_levels;
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, START, Work};
use crate::nn::{Flops, Grads, Layout, Mlp, MlpConfig, Network, UNet, UNetConfig};
use crate::ops::Ops;
use crate::ops::dropout::Masks;
use crate::ops::noise::{Purpose, Stream};

/// Some twenty ops in a row, each with an error of at most 1e-5, most far less.
const NETWORK_BOUND: f64 = 1e-4;

/// The same where each of them rounds to bf16: 1e-2 at most, of random sign.
const COARSE_NETWORK_BOUND: f64 = 3e-2;

/// The slots of a network's inputs: x, then the parameters in the layout's order.
const PARAMS: usize = 1;

fn inputs(x: Shape, layout: &Layout) -> Vec<Input> {
    let params = layout.specs().iter().map(|spec| match spec.dims[1..].iter().product() {
        1 if spec.dims.len() == 1 => Input::scaled(&spec.name, Shape::flat(spec.len()), 0.3),
        fan_in => Input::weights(&spec.name, spec.len(), fan_in),
    });
    [Input::normal("x", x).activation()].into_iter().chain(params).collect()
}

/// ln σ for `rows` noise levels.
fn log_sigma(rows: usize) -> Vec<f64> {
    (0..rows).map(|i| 0.7 - 1.3 * i as f64).collect()
}

/// Value and gradients of `network`, whose parameters are those of `layout`; `flops` is its work for one sample.
fn run<B: Ops, N: Network<B>>(
    network: &N,
    layout: &Layout,
    rows: usize,
    dropout: f64,
    flops: Flops,
    at: At<'_, B>,
    probe: &mut impl Probe,
) -> Outcome<B> {
    let At { backend, x, dy, keep } = at;
    let condition = network.condition(backend, &log_sigma(rows), keep);
    let samples: Vec<u32> = (0..x[0].shape().n as u32).map(|i| 5 * i + 2).collect();
    let stream = Stream::new(7, Purpose::Dropout).at(3, 0);
    let masks = (dropout > 0.0).then_some(Masks { rate: dropout, stream, samples: &samples });
    let ends = Work::pass(0.0, &[x[0].shape(); 2]);
    let work = |flops| Work { flops: x[0].shape().n as f64 * flops, ..ends };
    let forward = || network.forward_dropout(backend, &x[0], &condition, keep, masks);
    let (y, saved) = probe.call("forward", work(flops.forward), forward);
    let mut gradients = Gradients::new();
    if let (Some(dy), Some(saved)) = (dy, saved) {
        if keep == Keep::All {
            let mut grads = Grads::zeros(backend, layout);
            layout.ids().for_each(|id| backend.fill(grads.get_mut(id), START));
            gradients.written(0, network.vjp_params(backend, &condition, &saved, dy, &mut grads));
            layout.ids().for_each(|id| gradients.added(PARAMS + id.index(), backend.copy(&grads[id])));
        } else {
            let vjp = || network.vjp(backend, &condition, &saved, dy);
            gradients.written(0, probe.call("vjp", work(flops.vjp), vjp));
        }
    }
    Outcome::new(y, gradients)
}

struct UNetCase {
    x: Shape,
    config: UNetConfig,
    rows: usize,
    /// Its rate; the masks are the same in every call.
    dropout: f64,
}

impl Case for UNetCase {
    fn op(&self) -> &'static str {
        "unet"
    }
    fn size(&self) -> String {
        let Self { x, config, rows, dropout } = self;
        let dropout = if *dropout > 0.0 { format!(" dropout {dropout}") } else { String::new() };
        format!("{} channels {:?} {}{dropout}", extents(*x), config.channels, noise_levels(*rows))
    }
    fn inputs(&self) -> Vec<Input> {
        inputs(self.x, &self.config.layout())
    }
    fn bound(&self) -> f64 {
        NETWORK_BOUND
    }
    fn coarse_bound(&self) -> f64 {
        COARSE_NETWORK_BOUND
    }
    /// A norm scales rounding errors by 1/s, s the standard deviation of a pixel's channels, forward and again in its VJP. For C
    /// random channels and ν = C - 1, E\[s⁻⁴\] is ν²/((ν - 2)(ν - 4)): 1.6 at 16 channels, 4.5 at 7, infinite at 5, where a few
    /// pixels decide the error of a sum over all.
    fn coarse(&self) -> bool {
        self.config.channels.iter().all(|&c| c >= 16)
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let layout = self.config.layout();
        let size = (self.x.h, self.x.w);
        let unet = UNet::new(at.backend, &self.config, size, true, |id| &at.x[PARAMS + id.index()]);
        let flops = self.config.flops(self.x.h, self.x.w);
        Ok(run(&unet, &layout, self.rows, self.dropout, flops, at, probe))
    }
}

struct MlpCase {
    n: usize,
    config: MlpConfig,
    rows: usize,
}

impl Case for MlpCase {
    fn op(&self) -> &'static str {
        "mlp"
    }
    fn size(&self) -> String {
        let Self { n, config, rows } = self;
        format!("{n}x{} hidden {:?} {}", config.features, config.hidden, noise_levels(*rows))
    }
    fn inputs(&self) -> Vec<Input> {
        inputs(Shape::rows(self.n, self.config.features), &self.config.layout())
    }
    fn bound(&self) -> f64 {
        NETWORK_BOUND
    }
    fn coarse_bound(&self) -> f64 {
        COARSE_NETWORK_BOUND
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let layout = self.config.layout();
        let mlp = Mlp::new(at.backend, &self.config, |id| &at.x[PARAMS + id.index()]);
        let products: usize = self.config.widths().map(|(c_in, c_out)| c_in * c_out).sum();
        let products = 2.0 * products as f64;
        let flops = Flops { forward: products, vjp: products, params: products };
        Ok(run(&mlp, &layout, self.rows, 0.0, flops, at, probe))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let unet = |image_channels, channels: &[usize], heads: &[usize], patch| UNetConfig {
        in_channels: image_channels,
        out_channels: image_channels,
        channels: channels.to_vec(),
        blocks: vec![1; channels.len()],
        heads: heads.to_vec(),
        emb: 6,
        patch,
    };
    let two = unet(3, &[5, 9], &[0, 3], 1);
    let three = unet(1, &[6, 5, 7], &[2, 0, 0], 2);
    to.visit(UNetCase { x: Shape::new(3, 6, 10, 3), config: two, rows: 1, dropout: 0.0 })?;
    to.visit(UNetCase { x: Shape::new(2, 8, 24, 1), config: three, rows: 2, dropout: 0.0 })?;
    let two = unet(3, &[16, 24], &[0, 3], 1);
    let three = unet(1, &[16, 24, 32], &[2, 0, 0], 2);
    to.visit(UNetCase { x: Shape::new(2, 4, 6, 3), config: two, rows: 2, dropout: 0.3 })?;
    to.visit(UNetCase { x: Shape::new(2, 8, 16, 1), config: three, rows: 2, dropout: 0.0 })?;
    let config = MlpConfig { features: 5, hidden: vec![9, 17], emb: 6 };
    to.visit(MlpCase { n: 3, config: config.clone(), rows: 1 })?;
    to.visit(MlpCase { n: 3, config, rows: 3 })
}

/// The network of the paper's manifold.
pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let config = MlpConfig { features: 5, hidden: vec![256; 3], emb: 64 };
    to.visit(MlpCase { n: 256 * n, config, rows: 1 })
}
