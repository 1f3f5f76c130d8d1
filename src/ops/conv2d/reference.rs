//! conv2d: the f64 definition.

use super::{Conv2d, Conv2dSpec};
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Shape};

/// The weights as given.
pub struct ReferenceConv2d {
    spec: Conv2dSpec,
    w: Vec<f64>, // (c_out, c_in, 3, 3)
    b: Vec<f64>, // (c_out)
}

impl ReferenceConv2d {
    /// (o, c, index of w\[o, c, tap\]) for all channels.
    fn weights(&self, tap: usize) -> impl Iterator<Item = (usize, usize, usize)> {
        let Conv2dSpec { c_in, c_out, .. } = self.spec;
        (0..c_out).flat_map(move |o| (0..c_in).map(move |c| (o, c, (o * c_in + c) * 9 + tap)))
    }
    /// (pixel of y, tap 3 r + s, pixel of x) wherever the tap is inside the image; pixels are numbered over the batch.
    fn taps(&self, x: Shape) -> impl Iterator<Item = (usize, usize, usize)> {
        let (y, stride) = (self.spec.output(x), self.spec.stride);
        (0..y.n * y.pixels()).flat_map(move |p| {
            let (n, i, j) = (p / y.pixels(), p / y.w % y.h, p % y.w);
            (0..9).filter_map(move |tap| {
                let row = (stride * i + tap / 3).checked_sub(1).filter(|&row| row < x.h)?;
                let col = (stride * j + tap % 3).checked_sub(1).filter(|&col| col < x.w)?;
                Some((p, tap, (n * x.h + row) * x.w + col))
            })
        })
    }
}

impl Conv2d for Reference {
    type Conv2d = ReferenceConv2d;

    fn conv2d(&self, spec: Conv2dSpec, w: &Self::Tensor, b: &Self::Tensor, _x: Shape, _vjp: bool) -> ReferenceConv2d {
        assert_eq!((w.len(), b.len()), (9 * spec.c_in * spec.c_out, spec.c_out), "weights of {spec:?}");
        ReferenceConv2d { spec, w: w.to_vec(), b: b.to_vec() }
    }
    fn conv2d_forward(&self, k: &ReferenceConv2d, x: &Self::Tensor) -> Self::Tensor {
        let Conv2dSpec { c_in, c_out, .. } = k.spec;
        let mut y = self.alloc(k.spec.output(x.shape()));
        for y in y.chunks_exact_mut(c_out) {
            y.copy_from_slice(&k.b);
        }
        for (p, tap, q) in k.taps(x.shape()) {
            for (o, c, i) in k.weights(tap) {
                y[p * c_out + o] += k.w[i] * x[q * c_in + c];
            }
        }
        y
    }
    fn conv2d_vjp(&self, k: &ReferenceConv2d, x: Shape, dy: &Self::Tensor) -> Self::Tensor {
        let Conv2dSpec { c_in, c_out, .. } = k.spec;
        assert_eq!(dy.shape(), k.spec.output(x), "gradient of {:?}", k.spec);
        let mut dx = self.zeros(x);
        for (p, tap, q) in k.taps(x) {
            for (o, c, i) in k.weights(tap) {
                dx[q * c_in + c] += k.w[i] * dy[p * c_out + o];
            }
        }
        dx
    }
    fn conv2d_vjp_params(
        &self,
        k: &ReferenceConv2d,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        db: &mut Self::Tensor,
    ) {
        let Conv2dSpec { c_in, c_out, .. } = k.spec;
        assert_eq!(dy.shape(), k.spec.output(x.shape()), "gradient of {:?}", k.spec);
        for (p, tap, q) in k.taps(x.shape()) {
            for (o, c, i) in k.weights(tap) {
                dw[i] += dy[p * c_out + o] * x[q * c_in + c];
            }
        }
        for dy in dy.chunks_exact(c_out) {
            for (db, dy) in db.iter_mut().zip(dy) {
                *db += dy;
            }
        }
    }
}
