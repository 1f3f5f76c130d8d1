//! The decoder's merge on the CPU: the convolution reads both arrays by pointer, and its VJP writes both.

use super::Merge;
use crate::backend::cpu::simd::{LANES, Simd};
use crate::backend::cpu::{Cpu, SharedMut};
use crate::backend::host::HostTensor;
use crate::backend::{Array, Backend, Shape};
use crate::ops::conv2d::epilogue::Bias;
use crate::ops::conv2d::image::Image;
use crate::ops::conv2d::winograd::{LARGEST, Sink};
use crate::ops::{Concat, Conv2d, Upsample};

/// Of an output pixel's channels the first `c1`, summed over 2 x 2 pixels, and the others.
struct Split<'a> {
    /// (N, H/2, W/2, c1)
    dx: SharedMut<'a>,
    /// (N, H, W, C - c1)
    dskip: SharedMut<'a>,
    /// (N, H, W, C): what the convolution would write.
    shape: Shape,
    c1: usize,
}

impl Sink for Split<'_> {
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        tile: &[[S::V; LARGEST]; LARGEST],
        m: usize,
        (n, i0, j0): (usize, usize, usize),
        c: usize,
    ) {
        let Shape { h, w, .. } = self.shape;
        let (c1, c2) = (self.c1, self.shape.c - self.c1);
        // SAFETY: a tile starts at an even pixel and the extents are even, so 2 x 2 pixels are inside together; all that
        // is written belongs to this tile and these channels.
        unsafe {
            for i in (0..m).filter(|i| i0 + i < h) {
                for j in (0..m).filter(|j| j0 + j < w) {
                    let (i1, j1) = (i0 + i, j0 + j);
                    if c >= c1 {
                        let at = ((n * h + i1) * w + j1) * c2 + c - c1;
                        S::store(self.dskip.ptr().add(at), tile[i][j]);
                    } else if i % 2 == 0 && j % 2 == 0 {
                        let rows = [S::add(tile[i][j], tile[i][j + 1]), S::add(tile[i + 1][j], tile[i + 1][j + 1])];
                        let at = ((n * h / 2 + i1 / 2) * (w / 2) + j1 / 2) * c1 + c;
                        S::store(self.dx.ptr().add(at), S::add(rows[0], rows[1]));
                    }
                }
            }
        }
    }
}

impl Merge for Cpu {
    fn merge_forward(&self, k: &Self::Conv2d, x: &Self::Tensor, skip: &Self::Tensor) -> Self::Tensor {
        let image = Image::merged(x, skip);
        if !k.forward().takes(&image) {
            return self.conv2d_forward(k, &self.concat_forward(&self.upsample_forward(x), skip));
        }
        let mut y = self.alloc(k.spec().output(image.shape));
        k.forward().run(self, &image, &mut y, Bias(k.bias()));
        y
    }

    fn merge_vjp(&self, k: &Self::Conv2d, c1: usize, c2: usize, dy: &Self::Tensor) -> (Self::Tensor, Self::Tensor) {
        let s = dy.shape();
        assert!(s.h % 2 == 0 && s.w % 2 == 0, "merge to {s:?}");
        let mut dx = self.alloc(Shape::new(s.n, s.h / 2, s.w / 2, c1));
        let mut dskip = self.alloc(s.with_c(c2));
        let split =
            Split { dx: SharedMut::new(&mut dx), dskip: SharedMut::new(&mut dskip), shape: s.with_c(c1 + c2), c1 };
        if c1.is_multiple_of(LANES) && k.vjp().run_winograd(self, &Image::new(dy), split) {
            return (dx, dskip);
        }
        let input = self.conv2d_vjp(k, s.with_c(c1 + c2), dy);
        let (dup, dskip) = self.concat_vjp(&input, c1);
        (self.upsample_vjp(&dup), dskip)
    }

    fn merge_vjp_params(
        &self,
        k: &Self::Conv2d,
        x: &HostTensor<f32>,
        skip: &HostTensor<f32>,
        dy: &HostTensor<f32>,
        dw: &mut HostTensor<f32>,
        db: &mut HostTensor<f32>,
    ) {
        assert_eq!(k.spec().stride, 1, "merge by {:?}", k.spec());
        k.add_gradients(self, &Image::merged(x, skip), dy, dw, db);
    }
}
