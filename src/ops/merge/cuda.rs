//! The decoder's merge on the GPU: the convolution reads x and skip where they are. A pixel of x is seen through sums of
//! taps, 4 where the upsampled image has 9, and its gradient through 4 x 4 taps, 4 for each pixel of the upsampled image.

use super::Merge;
use crate::backend::cuda::{Cuda, CudaTensor};
use crate::backend::{Array, Shape};
use crate::ops::conv2d::Conv2dSpec;
use crate::ops::conv2d::cuda::epilogue::Epilogue;
use crate::ops::conv2d::cuda::view::{FLIPPED, PHASED, POOLED, UPSAMPLED};
use crate::ops::conv2d::cuda::vjp_params::{self, Input};
use crate::ops::conv2d::cuda::{CudaConv2d, layer};
use crate::ops::{Concat, Conv2d, Upsample};

/// Whether two arrays of these channels can be read as one: in chunks of 16 bytes in either precision.
fn direct(c1: usize, c2: usize) -> bool {
    c1.is_multiple_of(8) && c2.is_multiple_of(8)
}

impl Merge for Cuda {
    fn merge(
        &self,
        spec: Conv2dSpec,
        c1: usize,
        w: &CudaTensor,
        b: &CudaTensor,
        input: Shape,
        vjp: bool,
    ) -> CudaConv2d {
        let (c2, dtype) = (spec.c_in - c1, self.options().precision);
        if !direct(c1, c2) {
            return self.conv2d(spec, w, b, input, vjp);
        }
        assert_eq!(spec.stride, 1, "merge by {spec:?}");
        let layer = layer(spec, w, b);
        let forward = layer.forward(self, dtype, &[(c1, UPSAMPLED), (c2, PHASED)]);
        let vjps = if vjp {
            vec![layer.vjp(self, dtype, 0..c1, POOLED), layer.vjp(self, dtype, c1..spec.c_in, FLIPPED)]
        } else {
            Vec::new()
        };
        CudaConv2d::new(self, spec, b, forward, vjps)
    }

    fn merge_forward(&self, k: &CudaConv2d, x: &CudaTensor, skip: &CudaTensor) -> CudaTensor {
        let (x_s, s) = (x.shape(), skip.shape());
        assert_eq!((x_s.n, 2 * x_s.h, 2 * x_s.w), (s.n, s.h, s.w), "merge of {x_s:?} with {s:?}");
        if !direct(x_s.c, s.c) {
            return self.conv2d_forward(k, &self.concat_forward(&self.upsample_forward(x), skip));
        }
        let y = self.alloc_as(s.with_c(k.spec().c_out), skip.dtype());
        k.forward().run(self, &[x, skip], &y, &Epilogue::Bias(Some(k.bias())));
        y
    }

    fn merge_vjp(&self, k: &CudaConv2d, c1: usize, c2: usize, dy: &CudaTensor) -> (CudaTensor, CudaTensor) {
        let s = dy.shape();
        assert!(s.h.is_multiple_of(2) && s.w.is_multiple_of(2), "merge to {s:?}");
        let [vjp_x, vjp_skip] = k.vjps() else {
            let input = self.conv2d_vjp(k, s.with_c(c1 + c2), dy);
            let (dup, dskip) = self.concat_vjp(&input, c1);
            return (self.upsample_vjp(&dup), dskip);
        };
        let dx = self.alloc_as(Shape::new(s.n, s.h / 2, s.w / 2, c1), dy.dtype());
        let dskip = self.alloc_as(s.with_c(c2), dy.dtype());
        vjp_x.run(self, &[dy], &dx, &Epilogue::Bias(None));
        vjp_skip.run(self, &[dy], &dskip, &Epilogue::Bias(None));
        (dx, dskip)
    }

    fn merge_vjp_params(
        &self,
        k: &CudaConv2d,
        x: &CudaTensor,
        skip: &CudaTensor,
        dy: &CudaTensor,
        dw: &mut CudaTensor,
        db: &mut CudaTensor,
    ) {
        if direct(x.shape().c, skip.shape().c) {
            let input = Input::merged(x, skip);
            vjp_params::accumulate(self, &input, 3, k.spec().stride, dy, dw, Some(db));
        } else {
            let input = self.concat_forward(&self.upsample_forward(x), skip);
            self.conv2d_vjp_params(k, &input, dy, dw, db);
        }
    }
}
