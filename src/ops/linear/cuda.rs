//! Linear layers on the GPU: the convolution kernel with one tap.

use super::Linear;
use crate::backend::cuda::{Cuda, CudaTensor, Dtype};
use crate::backend::{Array, Backend};
use crate::ops::conv2d::cuda::epilogue::Epilogue;
use crate::ops::conv2d::cuda::map::{Layer, Map};
use crate::ops::conv2d::cuda::view::POINT;
use crate::ops::conv2d::cuda::vjp_params::{self, Input};

/// A layer's packed weights.
pub struct CudaLinear {
    bias: Option<CudaTensor>, // (c_out), f32
    /// For inputs in f32, as those of modulations always are, and in the network's precision where that is another.
    maps: Vec<Maps>,
}

struct Maps {
    dtype: Dtype,
    forward: Map,
    vjp: Map,
}

impl CudaLinear {
    /// (c_out), none without a bias.
    pub(crate) fn bias(&self) -> Option<&CudaTensor> {
        self.bias.as_ref()
    }
    /// c_in.
    pub(crate) fn inputs(&self) -> usize {
        self.maps[0].vjp.outputs()
    }
    /// c_out.
    pub(crate) fn outputs(&self) -> usize {
        self.maps[0].forward.outputs()
    }
    /// w and its transpose, f32, packed.
    pub(crate) fn packed_f32(&self) -> [&CudaTensor; 2] {
        let maps = self.maps(Dtype::F32);
        [&maps.forward, &maps.vjp].map(Map::point_weights)
    }
    fn maps(&self, dtype: Dtype) -> &Maps {
        self.maps.iter().find(|maps| maps.dtype == dtype).expect("weights in f32 and in the network's precision")
    }
}

impl Cuda {
    /// w x, finished by `epilogue`.
    pub(crate) fn linear_fused(&self, k: &CudaLinear, x: &CudaTensor, epilogue: &Epilogue<'_>) -> CudaTensor {
        self.product(&k.maps(x.dtype()).forward, x, epilogue)
    }
    /// wᵀ dy, finished by `epilogue`.
    pub(crate) fn linear_vjp_fused(&self, k: &CudaLinear, dy: &CudaTensor, epilogue: &Epilogue<'_>) -> CudaTensor {
        self.product(&k.maps(dy.dtype()).vjp, dy, epilogue)
    }
    /// wᵀ (factor dy), `factor` the channels of one row of f32 from `first` on.
    pub(crate) fn linear_vjp_scaled(
        &self,
        k: &CudaLinear,
        factor: &CudaTensor,
        first: usize,
        dy: &CudaTensor,
    ) -> CudaTensor {
        self.product(&k.maps(dy.dtype()).vjp.scaled(self, factor, first), dy, &Epilogue::Bias(None))
    }
    fn product(&self, map: &Map, x: &CudaTensor, epilogue: &Epilogue<'_>) -> CudaTensor {
        let y = self.alloc_as(x.shape().with_c(map.outputs()), x.dtype());
        map.run(self, &[x], &y, epilogue);
        y
    }
}

impl Linear for Cuda {
    type Linear = CudaLinear;

    fn linear(&self, c_in: usize, c_out: usize, w: &CudaTensor, b: Option<&CudaTensor>) -> CudaLinear {
        assert_eq!(w.shape().len(), c_out * c_in, "weights of a linear layer, {c_in} to {c_out}");
        assert!(b.is_none_or(|b| b.shape().len() == c_out), "bias of a linear layer, {c_in} to {c_out}");
        let layer = Layer { w, c_in, c_out, width: 1 };
        let mut dtypes = vec![Dtype::F32, self.options().precision];
        dtypes.dedup();
        let maps = dtypes.into_iter().map(|dtype| Maps {
            dtype,
            forward: layer.forward(self, dtype, &[(c_in, POINT)]),
            vjp: layer.vjp(self, dtype, 0..c_in, POINT),
        });
        CudaLinear { maps: maps.collect(), bias: b.map(|b| self.copy(b)) }
    }

    fn linear_forward(&self, k: &CudaLinear, x: &CudaTensor) -> CudaTensor {
        self.linear_fused(k, x, &Epilogue::Bias(k.bias()))
    }

    fn linear_vjp(&self, k: &CudaLinear, dy: &CudaTensor) -> CudaTensor {
        self.linear_vjp_fused(k, dy, &Epilogue::Bias(None))
    }

    fn linear_vjp_params(
        &self,
        _k: &CudaLinear,
        x: &CudaTensor,
        dy: &CudaTensor,
        dw: &mut CudaTensor,
        db: Option<&mut CudaTensor>,
    ) {
        vjp_params::accumulate(self, &Input::new(x), 1, 1, dy, dw, db);
    }
}
