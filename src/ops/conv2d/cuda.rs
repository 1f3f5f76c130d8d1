//! Convolution on the GPU: an implicit matrix product, `kernels/conv2d.cuh`.

mod boxes;
pub(crate) mod epilogue;
pub(crate) mod map;
mod packing;
mod tile;
pub(crate) mod view;
pub(crate) mod vjp_params;

use super::{Conv2d, Conv2dSpec};
use crate::backend::cuda::{Cuda, CudaTensor};
use crate::backend::{Array, Backend, Shape};
use epilogue::Epilogue;
use map::{Layer, Map};
use view::{DILATED, FLIPPED, STRIDED, WINDOW};
use vjp_params::Input;

/// A layer's packed weights.
pub struct CudaConv2d {
    spec: Conv2dSpec,
    bias: CudaTensor, // f32
    forward: Map,
    vjps: Vec<Map>, // for each array that the layer reads
}

impl CudaConv2d {
    /// A layer that reads one array, or two in its own way (a merge).
    pub(crate) fn new(cuda: &Cuda, spec: Conv2dSpec, b: &CudaTensor, forward: Map, vjps: Vec<Map>) -> Self {
        Self { spec, bias: cuda.copy(b), forward, vjps }
    }
    /// Its extents.
    pub(crate) fn spec(&self) -> Conv2dSpec {
        self.spec
    }
    /// (c_out)
    pub(crate) fn bias(&self) -> &CudaTensor {
        &self.bias
    }
    /// The layer.
    pub(crate) fn forward(&self) -> &Map {
        &self.forward
    }
    /// The gradients for what it reads.
    pub(crate) fn vjps(&self) -> &[Map] {
        assert!(!self.vjps.is_empty(), "the layer was packed for its VJP");
        &self.vjps
    }
}

/// The weights of a 3x3 convolution.
pub(crate) fn layer<'a>(spec: Conv2dSpec, w: &'a CudaTensor, b: &CudaTensor) -> Layer<'a> {
    let Conv2dSpec { c_in, c_out, stride } = spec;
    assert_eq!((w.shape().len(), b.shape().len()), (c_out * c_in * 9, c_out), "weights of {spec:?}");
    assert!(stride == 1 || stride == 2, "stride of {spec:?}");
    Layer { w, c_in, c_out, width: 3 }
}

impl Conv2d for Cuda {
    type Conv2d = CudaConv2d;

    fn conv2d(&self, spec: Conv2dSpec, w: &CudaTensor, b: &CudaTensor, _x: Shape, vjp: bool) -> CudaConv2d {
        let (layer, dtype) = (layer(spec, w, b), self.options().precision);
        let (view, vjp_view) = if spec.stride == 1 { (WINDOW, FLIPPED) } else { (STRIDED, DILATED) };
        let forward = layer.forward(self, dtype, &[(spec.c_in, view)]);
        let vjp = vjp.then(|| layer.vjp(self, dtype, 0..spec.c_in, vjp_view));
        CudaConv2d::new(self, spec, b, forward, vjp.into_iter().collect())
    }

    fn conv2d_forward(&self, k: &CudaConv2d, x: &CudaTensor) -> CudaTensor {
        let y = self.alloc_as(k.spec.output(x.shape()), x.dtype());
        k.forward.run(self, &[x], &y, &Epilogue::Bias(Some(&k.bias)));
        y
    }

    fn conv2d_vjp(&self, k: &CudaConv2d, x: Shape, dy: &CudaTensor) -> CudaTensor {
        assert_eq!(k.spec.output(x), dy.shape(), "VJP of {:?}", k.spec);
        let dx = self.alloc_as(x, dy.dtype());
        let [vjp] = k.vjps() else { panic!("VJP of a merge as of a convolution") };
        vjp.run(self, &[dy], &dx, &Epilogue::Bias(None));
        dx
    }

    fn conv2d_vjp_params(
        &self,
        k: &CudaConv2d,
        x: &CudaTensor,
        dy: &CudaTensor,
        dw: &mut CudaTensor,
        db: &mut CudaTensor,
    ) {
        assert_eq!(k.spec.output(x.shape()), dy.shape(), "VJP of {:?}", k.spec);
        vjp_params::accumulate(self, &Input::new(x), 3, k.spec.stride, dy, dw, Some(db));
    }
}
