//! Networks in float64: derivatives against central differences, memory, and the search for non-finite values.

use diem::backend::reference::Reference;
use diem::backend::{Backend, Keep, Shape};
use diem::nn::{Grads, Layout, Mlp, MlpConfig, Network, ParamId, UNet, UNetConfig};
use diem::ops::dropout::Masks;
use diem::ops::noise::{Purpose, Stream};

const BATCH: usize = 2;
const LOG_SIGMA: [f64; BATCH] = [-1.3, 0.4];

/// Two levels, attention with heads of 3 channels, folded pixels, an empty level.
fn unet() -> UNetConfig {
    let (channels, blocks, heads) = (vec![4, 6, 5], vec![1, 1, 0], vec![0, 2, 0]);
    UNetConfig { in_channels: 2, out_channels: 2, channels, blocks, heads, emb: 6, patch: 2 }
}

fn normal(sample: u32, len: usize) -> Vec<f64> {
    let stream = Stream::new(5, Purpose::Test);
    (0u32..).flat_map(|block| stream.normals(sample, block)).take(len).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Weights and biases as after training: none is zero.
fn weights(layout: &Layout) -> Vec<Vec<f64>> {
    let value = |id: ParamId| {
        let spec = &layout[id];
        let scale = 1.0 / (spec.dims[1..].iter().product::<usize>() as f64).sqrt().max(3.0);
        normal(id.index() as u32, spec.len()).into_iter().map(|v| scale * v).collect()
    };
    layout.ids().map(value).collect()
}

/// A network of given weights.
trait Build {
    type Network: Network<Reference>;
    const IMAGE: Shape;
    fn layout(&self) -> Layout;
    fn build(&self, backend: &Reference, weights: &[Vec<f64>]) -> Self::Network;
}

impl Build for UNetConfig {
    type Network = UNet<Reference>;
    const IMAGE: Shape = Shape::new(BATCH, 8, 16, 2);
    fn layout(&self) -> Layout {
        self.layout()
    }
    fn build(&self, backend: &Reference, weights: &[Vec<f64>]) -> Self::Network {
        UNet::new(backend, self, (8, 16), true, |id| upload(backend, &weights[id.index()]))
    }
}

impl Build for MlpConfig {
    type Network = Mlp<Reference>;
    const IMAGE: Shape = Shape::rows(BATCH, 5);
    fn layout(&self) -> Layout {
        self.layout()
    }
    fn build(&self, backend: &Reference, weights: &[Vec<f64>]) -> Self::Network {
        Mlp::new(backend, self, |id| upload(backend, &weights[id.index()]))
    }
}

fn upload(backend: &Reference, values: &[f64]) -> <Reference as Backend>::Tensor {
    backend.upload(Shape::flat(values.len()), values)
}

/// <u, net(x)> for noise levels per sample and a shared one, its derivatives in random directions of x and of every
/// parameter in turn, against (f(+h) - f(-h)) / 2h.
fn check_derivatives<C: Build>(config: &C) {
    let backend = Reference::new();
    let layout = config.layout();
    let weights = weights(&layout);
    let len = C::IMAGE.len();
    let (x, u, v) = (normal(1000, len), normal(1001, len), normal(1002, len));
    for log_sigma in [&LOG_SIGMA[..], &LOG_SIGMA[..1]] {
        let value = |weights: &[Vec<f64>], x: &[f64]| {
            let network = config.build(&backend, weights);
            let condition = network.condition(&backend, log_sigma, Keep::Nothing);
            let (y, _) = network.forward(&backend, &backend.upload(C::IMAGE, x), &condition, Keep::Nothing);
            dot(&u, &backend.to_vec(&y).unwrap())
        };
        let network = config.build(&backend, &weights);
        let condition = network.condition(&backend, log_sigma, Keep::All);
        let (_, saved) = network.forward(&backend, &backend.upload(C::IMAGE, &x), &condition, Keep::All);
        let mut grads = Grads::zeros(&backend, &layout);
        let dy = backend.upload(C::IMAGE, &u);
        let dx = network.vjp_params(&backend, &condition, &saved.unwrap(), &dy, &mut grads);

        // truncation h² f'''/6 and rounding 1e-16 f/h meet at relative errors near 1e-9
        let h = 1e-5;
        let agree = |name: &str, found: f64, scale: f64, difference: f64| {
            assert!(found.is_finite() && difference.is_finite(), "{name}");
            let error = (found - difference / (2.0 * h)).abs();
            assert!(error <= 1e-6 * scale, "{name}: {found} differs by {error:.1e} of {scale:.1e}");
        };
        let moved = |h: f64| x.iter().zip(&v).map(|(x, v)| x + h * v).collect::<Vec<_>>();
        let dx = backend.to_vec(&dx).unwrap();
        agree("x", dot(&dx, &v), dot(&dx, &dx).sqrt(), value(&weights, &moved(h)) - value(&weights, &moved(-h)));
        for id in layout.ids() {
            let direction = normal(2000 + id.index() as u32, layout[id].len());
            let moved = |h: f64| {
                let mut weights = weights.clone();
                weights[id.index()].iter_mut().zip(&direction).for_each(|(w, d)| *w += h * d);
                value(&weights, &x)
            };
            let grad = backend.to_vec(&grads[id]).unwrap();
            // the keys' bias has no effect, and its gradient no scale of its own
            let scale = dot(&grad, &grad).sqrt().max(1e-3);
            agree(&layout[id].name, dot(&grad, &direction), scale, moved(h) - moved(-h));
        }
    }
}

#[test]
fn unet_derivatives_are_central_differences() {
    check_derivatives(&unet());
}

#[test]
fn mlp_derivatives_are_central_differences() {
    check_derivatives(&MlpConfig { features: 5, hidden: vec![7, 6], emb: 4 });
}

#[test]
fn a_second_step_allocates_nothing() {
    let backend = Reference::new();
    let network = unet().build(&backend, &weights(&unet().layout()));
    let x = backend.upload(UNetConfig::IMAGE, &normal(1, UNetConfig::IMAGE.len()));
    let mut seen = Vec::new();
    for _ in 0..3 {
        let condition = network.condition(&backend, &LOG_SIGMA[..1], Keep::Input);
        let before = backend.memory().live;
        network.forward(&backend, &x, &condition, Keep::Nothing);
        assert_eq!(backend.memory().live, before, "a forward that keeps nothing keeps nothing");
        let (y, saved) = network.forward(&backend, &x, &condition, Keep::Input);
        network.vjp(&backend, &condition, &saved.unwrap(), &y);
        seen.push(backend.memory().fresh);
    }
    assert_eq!(seen[1], seen[0], "fresh buffers after each step: {seen:?}");
    assert_eq!(seen[2], seen[0], "fresh buffers after each step: {seen:?}");
}

/// Layer and sample of the first non-finite output.
fn locate(weights: &[Vec<f64>], x: &[f64], log_sigma: &[f64]) -> Option<(String, usize)> {
    let backend = Reference::new();
    let network = unet().build(&backend, weights);
    let condition = network.condition(&backend, log_sigma, Keep::Nothing);
    let x = backend.upload(UNetConfig::IMAGE, x);
    let found = network.locate_nonfinite(&backend, &x, &condition).unwrap();
    found.map(|found| (found.layer, found.sample))
}

#[test]
fn a_non_finite_value_is_located() {
    let layout = unet().layout();
    let (weights, x) = (weights(&layout), normal(1, UNetConfig::IMAGE.len()));
    assert_eq!(locate(&weights, &x, &LOG_SIGMA), None);

    let mut wrong = x.clone();
    wrong[UNetConfig::IMAGE.row() + 3] = f64::NAN;
    assert_eq!(locate(&weights, &wrong, &LOG_SIGMA), Some(("input".into(), 1)));

    assert_eq!(locate(&weights, &x, &[0.0, f64::NAN]), Some(("down.0.res.0".into(), 1)));

    for (parameter, layer) in [
        ("stem.bias", "stem"),
        ("down.1.sample.weight", "down.1.sample"),
        ("up.1.attn.0.k.weight", "up.1.attn.0"),
        ("up.0.merge.bias", "up.0.merge"),
        ("head.weight", "head"),
    ] {
        let mut weights = weights.clone();
        weights[layout.id(parameter).index()][0] = f64::INFINITY;
        assert_eq!(locate(&weights, &x, &LOG_SIGMA), Some((layer.into(), 0)), "{parameter}");
    }
}

#[test]
fn presets_have_as_many_parameters_as_in_pytorch() {
    for (name, elements) in [("cifar", 57_560_451), ("mri", 77_648_912), ("small", 657_603)] {
        let config = UNetConfig::preset(name).unwrap();
        config.validate().unwrap();
        assert_eq!(config.layout().elements(), elements, "{name}");
    }
}

#[test]
fn what_dropout_drops_depends_on_step_sample_and_layer_alone() {
    let (backend, config) = (Reference::new(), unet());
    let network = config.build(&backend, &weights(&config.layout()));
    let image = UNetConfig::IMAGE;
    let value = |samples: &[u32], rate: f64, step: usize| {
        let shape = image.with_n(samples.len());
        let x: Vec<f64> = samples.iter().flat_map(|sample| normal(*sample, image.row())).collect();
        let condition = network.condition(&backend, &[0.4], Keep::All);
        let stream = Stream::new(3, Purpose::Test).at(step, 0);
        let masks = (rate > 0.0).then_some(Masks { rate, stream, samples });
        network.forward_dropout(&backend, &backend.upload(shape, &x), &condition, Keep::All, masks).0.to_vec()
    };
    let together = value(&[8, 70_000], 0.4, 9);
    assert_eq!(together, [value(&[8], 0.4, 9), value(&[70_000], 0.4, 9)].concat());
    assert_ne!(value(&[8], 0.4, 10), value(&[8], 0.4, 9));
    assert_ne!(value(&[8], 0.4, 9), value(&[8], 0.0, 9));

    let masks = Masks { rate: 0.4, stream: Stream::new(3, Purpose::Test).at(9, 0), samples: &[8] };
    let [first, second] = [0, 1].map(|layer| {
        let mut x = backend.upload(Shape::rows(1, 64), &[0.6; 64]);
        masks.layer(layer).apply(&backend, &mut x);
        x.to_vec()
    });
    assert!(first.iter().all(|x| *x == 0.0 || (x - 1.0).abs() < 1e-15) && first != second);
}
