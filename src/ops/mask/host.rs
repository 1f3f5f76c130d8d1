//! mask: one generic form for the host backends.

use super::Mask;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};

impl<B: HostBackend> Mask for B {
    fn mask_apply(&self, mask: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor {
        let Shape { n, h, w, c } = x.shape();
        let rows = mask.shape().n;
        assert!(rows == 1 || rows == n, "a mask of {rows} rows for {n} samples");
        assert_eq!(mask.shape(), Shape::new(rows, h, w, 1), "extents of the mask for {:?}", x.shape());
        let mut y = self.alloc(x.shape());
        for i in 0..n {
            let pixels = y.row_mut(i).chunks_exact_mut(c).zip(x.row(i).chunks_exact(c));
            for ((y, x), m) in pixels.zip(mask.row_or_shared(i)) {
                if m.f64() == 0.0 {
                    y.fill(B::Elem::of(0.0));
                } else {
                    y.copy_from_slice(x);
                }
            }
        }
        y
    }
}
