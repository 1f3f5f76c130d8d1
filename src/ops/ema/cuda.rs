//! Launch of `kernels/ema.cu`.

use super::Ema;
use crate::backend::Array;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};

impl Ema for Cuda {
    fn ema_update(&self, e: &mut CudaTensor, p: &CudaTensor, decay: f64) {
        assert_eq!((e.shape(), e.dtype()), (p.shape(), Dtype::F32), "average of another array");
        let count = e.shape().len();
        let args = Args::new().ptr(e).ptr(p).arg((1.0 - decay) as f32).arg(count as u32);
        self.launch(Launch::per_item("ema_update_f32", count.div_ceil(4), args));
    }
}
