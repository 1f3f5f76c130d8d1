//! upsample: the f64 definition.

use super::Upsample;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Shape};

/// (element of y, element of x that it copies), for all elements of y.
fn copies(x: Shape) -> impl Iterator<Item = (usize, usize)> {
    let row = 2 * x.w * x.c; // of y
    (0..4 * x.len()).map(move |i| {
        let (rows, col, c) = (i / row, i % row / x.c, i % x.c);
        (i, (rows / 2 * x.w + col / 2) * x.c + c) // rows over the batch: each image has an even number
    })
}

impl Upsample for Reference {
    fn upsample_forward(&self, x: &Self::Tensor) -> Self::Tensor {
        let s = x.shape();
        let mut y = self.alloc(Shape { h: 2 * s.h, w: 2 * s.w, ..s });
        for (i, j) in copies(s) {
            y[i] = x[j];
        }
        y
    }
    fn upsample_vjp(&self, dy: &Self::Tensor) -> Self::Tensor {
        let s = dy.shape();
        let x = Shape { h: s.h / 2, w: s.w / 2, ..s };
        let mut dx = self.zeros(x);
        for (i, j) in copies(x) {
            dx[j] += dy[i];
        }
        dx
    }
}
