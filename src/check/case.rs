//! What a case of the registry is: an op at one size, called once for all backends and all modes.

use crate::Result;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Keep, Shape};
use crate::ops::noise::{Purpose, Stream};
use crate::ops::{Noise, TrainingOps};

/// An op, or a network, at one size.
pub trait Case {
    /// Its name: that of the folder in `src/ops`.
    fn op(&self) -> &'static str;
    /// Its extents, for people.
    fn size(&self) -> String;
    /// Whether "op size" contains `filter`.
    fn matches(&self, filter: &str) -> bool {
        format!("{} {}", self.op(), self.size()).contains(filter)
    }
    /// Its arrays, in the order in which [`Case::run`] gets them.
    fn inputs(&self) -> Vec<Input>;
    /// The inputs in which it is (jointly) linear, up to a constant.
    fn linear(&self) -> &'static [usize] {
        &[]
    }
    /// The largest relative error, in norm, of a backend with f32 arithmetic.
    ///
    /// 1e-5 for one op: sums of at most some 10⁴ products of rounding error 6e-8 each, of random sign, err by 6e-6 at most.
    fn bound(&self) -> f64 {
        1e-5
    }
    /// Whether it is part of a network, whose activations may be bf16.
    fn network(&self) -> bool {
        self.inputs().iter().any(|input| input.activation)
    }
    /// The largest relative error, in norm, of a backend whose activations are bf16.
    ///
    /// 1e-2 for one op: roundings of 2⁻⁹ at most, to its input, to a product or two inside, and to its result.
    fn coarse_bound(&self) -> f64 {
        1e-2
    }
    /// Whether rounding to bf16 leaves errors that [`Case::coarse_bound`] bounds.
    fn coarse(&self) -> bool {
        true
    }
    /// The value at `x`; the gradients of <dy, y> with respect to the inputs, unless nothing is kept; those of the
    /// parameters too when all is kept. Every call of the op goes through `probe`.
    ///
    /// # Errors
    /// When the device has failed.
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>>;
}

/// What a case is run with.
pub struct At<'a, B: Backend> {
    /// The backend.
    pub backend: &'a B,
    /// The inputs, uploaded.
    pub x: &'a [B::Tensor],
    /// The gradient of the value, unless nothing is kept.
    pub dy: Option<&'a B::Tensor>,
    /// What the forward keeps, hence which gradients there are.
    pub keep: Keep,
}

/// One array that a case is given.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its name, as in the op's contract.
    pub name: String,
    /// Its extents.
    pub shape: Shape,
    /// What its elements are drawn from.
    pub values: Values,
    /// Whether it is an activation of a network.
    pub activation: bool,
}

/// A distribution of random elements.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// N(0, std²).
    Normal(f64),
    /// 1 with this probability, else 0.
    Mask(f64),
}

impl Input {
    /// N(0, 1).
    pub fn normal(name: impl Into<String>, shape: Shape) -> Self {
        Self::scaled(name, shape, 1.0)
    }
    /// N(0, std²).
    pub fn scaled(name: impl Into<String>, shape: Shape, std: f64) -> Self {
        Self { name: name.into(), shape, values: Values::Normal(std), activation: false }
    }
    /// The same as an activation of a network.
    pub fn activation(self) -> Self {
        Self { activation: true, ..self }
    }
    /// Weights of a layer that adds `fan_in` products: N(0, 1/fan_in).
    pub fn weights(name: impl Into<String>, len: usize, fan_in: usize) -> Self {
        Self::scaled(name, Shape::flat(len), 1.0 / (fan_in as f64).sqrt())
    }
    /// 1 with probability `kept`, else 0.
    pub fn mask(name: impl Into<String>, shape: Shape, kept: f64) -> Self {
        Self { name: name.into(), shape, values: Values::Mask(kept), activation: false }
    }
    /// Standard deviation of its elements.
    pub fn std(&self) -> f64 {
        match self.values {
            Values::Normal(std) => std,
            Values::Mask(kept) => (kept * (1.0 - kept)).sqrt(),
        }
    }
    /// Random elements: some thousands, over and over. To draw more would take longer than the timings that they are for.
    pub fn repeated(&self, slot: usize) -> Vec<f32> {
        const DRAWN: usize = 1 << 16;
        let len = self.shape.len();
        let drawn = Self { shape: Shape::flat(len.min(DRAWN)), ..self.clone() }.draw(0, slot);
        drawn.iter().map(|x| *x as f32).cycle().take(len).collect()
    }
    /// Elements that f32 represents, so that every backend is given the same; `slot` tells the inputs of a case apart.
    pub fn draw(&self, seed: u64, slot: usize) -> Vec<f64> {
        let len = self.shape.len();
        match self.values {
            Values::Normal(std) => normal(len, seed, slot).iter().map(|z| f64::from((std * z) as f32)).collect(),
            Values::Mask(kept) => {
                stream(seed, slot).uniforms(0).take(len).map(|u| if u < kept { 1.0 } else { 0.0 }).collect()
            }
        }
    }
}

/// `len` numbers N(0, 1), named by `seed` and `slot`.
pub fn normal(len: usize, seed: u64, slot: usize) -> Vec<f64> {
    Reference::new().noise_normal(Shape::flat(len), stream(seed, slot), &[0]).to_vec()
}

fn stream(seed: u64, slot: usize) -> Stream {
    Stream::new(seed, Purpose::Test).at(slot, 0)
}

/// What a case computed.
pub struct Outcome<B: Backend> {
    /// Named values. The first is y, which gradients refer to; others are what the op also returns.
    pub values: Vec<(&'static str, B::Tensor)>,
    /// Gradients of <dy, y>.
    pub gradients: Gradients<B>,
}

impl<B: Backend> Outcome<B> {
    /// The value `y`, and its gradients.
    pub fn new(y: B::Tensor, gradients: Gradients<B>) -> Self {
        Self { values: vec![("y", y)], gradients }
    }
}

/// Gradients, each with the index of its input.
pub struct Gradients<B: Backend>(Vec<(usize, Gradient<B>)>);

enum Gradient<B: Backend> {
    Written(B::Tensor),
    Added(B::Tensor),
}

impl<B: Backend> Gradients<B> {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }
    /// The gradient of input `slot`.
    pub fn written(&mut self, slot: usize, gradient: B::Tensor) {
        self.0.push((slot, Gradient::Written(gradient)));
    }
    /// The [`accumulator`] that the gradient of input `slot` was added to.
    pub fn added(&mut self, slot: usize, accumulator: B::Tensor) {
        self.0.push((slot, Gradient::Added(accumulator)));
    }
    /// All of them, on the host.
    ///
    /// # Errors
    /// As [`Backend::download`].
    pub fn download(&self, backend: &B) -> Result<Vec<(usize, Vec<f64>)>> {
        let host = |(slot, gradient): &(usize, Gradient<B>)| {
            let gradient = match gradient {
                Gradient::Written(g) => backend.to_vec(g)?,
                Gradient::Added(g) => backend.to_vec(g)?.iter().map(|g| g - START).collect(),
            };
            Ok((*slot, gradient))
        };
        self.0.iter().map(host).collect()
    }
}

impl<B: Backend> Default for Gradients<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// What accumulators hold at first: not 0, so that an op that overwrites is found out.
pub const START: f64 = 0.5;

/// An array for the parameter gradient of `w`.
pub fn accumulator<B: Backend>(backend: &B, w: &B::Tensor) -> B::Tensor {
    let mut dw = backend.alloc(w.shape());
    backend.fill(&mut dw, START);
    dw
}

/// A case's inputs, drawn from `seed`.
pub fn draw(inputs: &[Input], seed: u64) -> Vec<Vec<f64>> {
    inputs.iter().enumerate().map(|(slot, input)| input.draw(seed, slot)).collect()
}

/// A case's inputs on a device.
pub fn upload<B: Backend>(backend: &B, inputs: &[Input], x: &[Vec<f64>]) -> Vec<B::Tensor> {
    let upload = |(input, x): (&Input, &Vec<f64>)| match input.activation {
        true => backend.upload_activation(input.shape, x),
        false => backend.upload(input.shape, x),
    };
    inputs.iter().zip(x).map(upload).collect()
}

/// A gradient for the value `y` of a case with `inputs` inputs, drawn from `seed`.
pub fn draw_dy<B: Backend>(backend: &B, y: &B::Tensor, seed: u64, inputs: usize) -> B::Tensor {
    backend.upload_like(y, &Input::normal("dy", y.shape()).draw(seed, inputs))
}

/// What a call costs at least.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// Floating point operations, a multiply-add counted as two.
    pub flops: f64,
    /// Elements of activations and layers' weights read and written, in the network's precision.
    pub network: usize,
    /// Elements of other arrays read and written, which are f32.
    pub others: usize,
}

impl Work {
    /// `flops` per element of the first array, and one pass over each of the arrays, which are a network's activations.
    pub fn pass(flops: f64, activations: &[Shape]) -> Self {
        let flops = flops * activations[0].len() as f64;
        Self { flops, network: activations.iter().map(|s| s.len()).sum(), others: 0 }
    }
    /// [`Work::pass`] over other arrays.
    pub fn pass_f32(flops: f64, arrays: &[Shape]) -> Self {
        let Self { flops, network, .. } = Self::pass(flops, arrays);
        Self { flops, network: 0, others: network }
    }
    /// The same with so many elements of f32 more.
    pub fn and_f32(self, others: usize) -> Self {
        Self { others: self.others + others, ..self }
    }
    /// Bytes; `coarse`: of a network in bf16.
    pub fn bytes(self, coarse: bool) -> f64 {
        let size = if coarse { 2 } else { 4 };
        (size * self.network + 4 * self.others) as f64
    }
}

/// What a case makes its calls through: it decides how often each is made.
pub trait Probe {
    /// Makes the call `what` at least once, and gives its last result.
    fn call<T>(&mut self, what: &'static str, work: Work, f: impl FnMut() -> T) -> T;
}

/// Makes every call once.
pub struct Once;

impl Probe for Once {
    fn call<T>(&mut self, _what: &'static str, _work: Work, mut f: impl FnMut() -> T) -> T {
        f()
    }
}
