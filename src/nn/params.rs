//! Parameters by name: what a network is built from, and the accumulators of their gradients.

use crate::backend::{Backend, Shape};
use std::collections::HashMap;
use std::ops::Index;
use std::sync::Arc;

/// Name and extents of one parameter, in PyTorch's layout: weights (out, in) or (out, in, kh, kw), biases (out).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParamSpec {
    /// The name within its network, "down.0.res.1.conv2.weight".
    pub name: String,
    /// Extents, outermost first.
    pub dims: Vec<usize>,
}

impl ParamSpec {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }
    /// Whether it holds no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The position of a parameter in its network's [`Layout`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParamId(usize);

impl ParamId {
    /// The position, from 0.
    pub fn index(self) -> usize {
        self.0
    }
}

/// The parameters that a network has, in the order of PyTorch's `named_parameters`.
#[derive(Default, Debug)]
pub struct Layout {
    specs: Vec<ParamSpec>,
    index: HashMap<String, ParamId>,
}

impl Layout {
    /// Adds a parameter.
    pub fn push(&mut self, name: String, dims: &[usize]) {
        let previous = self.index.insert(name.clone(), ParamId(self.specs.len()));
        assert!(previous.is_none(), "two parameters named {name}");
        self.specs.push(ParamSpec { name, dims: dims.to_vec() });
    }
    /// Adds `name`.weight and `name`.bias of a layer with `dims[0]` outputs.
    pub fn push_layer(&mut self, name: &str, dims: &[usize]) {
        self.push(format!("{name}.weight"), dims);
        self.push(format!("{name}.bias"), &dims[..1]);
    }
    /// The position of `name`, which must be one of the network's own.
    pub fn id(&self, name: &str) -> ParamId {
        *self.index.get(name).unwrap_or_else(|| panic!("the network has no parameter {name}"))
    }
    /// All parameters.
    pub fn specs(&self) -> &[ParamSpec] {
        &self.specs
    }
    /// All positions.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.specs.len()).map(ParamId)
    }
    /// The number of elements of all parameters together.
    pub fn elements(&self) -> usize {
        self.specs.iter().map(ParamSpec::len).sum()
    }
}

impl Index<ParamId> for Layout {
    type Output = ParamSpec;
    fn index(&self, id: ParamId) -> &ParamSpec {
        &self.specs[id.0]
    }
}

/// A network's parameters on a device, each a flat array.
pub struct Params<B: Backend> {
    layout: Arc<Layout>,
    values: Vec<B::Tensor>,
}

impl<B: Backend> Params<B> {
    /// The parameters of `layout`, each from `value`.
    pub fn new(layout: Arc<Layout>, value: impl FnMut(ParamId) -> B::Tensor) -> Self {
        let values = layout.ids().map(value).collect();
        Self { layout, values }
    }
    /// Their names and extents.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }
    /// Accumulators of the gradients, all zero.
    pub fn zero_grads(&self, backend: &B) -> Grads<B> {
        Grads::zeros(backend, &self.layout)
    }
    /// A parameter, to be changed.
    pub fn get_mut(&mut self, id: ParamId) -> &mut B::Tensor {
        &mut self.values[id.0]
    }
}

impl<B: Backend> Index<ParamId> for Params<B> {
    type Output = B::Tensor;
    fn index(&self, id: ParamId) -> &B::Tensor {
        &self.values[id.0]
    }
}

/// One accumulator per parameter, of the same length and in the same order.
pub struct Grads<B: Backend> {
    values: Vec<B::Tensor>,
}

impl<B: Backend> Grads<B> {
    /// Zeros.
    pub fn zeros(backend: &B, layout: &Layout) -> Self {
        Self { values: layout.specs.iter().map(|p| backend.zeros(Shape::flat(p.len()))).collect() }
    }
    /// An accumulator, to add to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut B::Tensor {
        &mut self.values[id.0]
    }
    /// Several accumulators at once.
    pub fn get_many_mut<const K: usize>(&mut self, ids: [ParamId; K]) -> [&mut B::Tensor; K] {
        self.values.get_disjoint_mut(ids.map(|id| id.0)).expect("distinct parameters")
    }
}

impl<B: Backend> Index<ParamId> for Grads<B> {
    type Output = B::Tensor;
    fn index(&self, id: ParamId) -> &B::Tensor {
        &self.values[id.0]
    }
}
