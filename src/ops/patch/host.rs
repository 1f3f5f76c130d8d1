//! patch: one generic form for the host backends.

use super::Patch;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Shape};

/// (start in x, start in y) of every run of `patch` x.c elements that lie together in both; x is the unfolded one.
fn runs(x: Shape, patch: usize) -> impl Iterator<Item = (usize, usize)> {
    assert!(x.h.is_multiple_of(patch) && x.w.is_multiple_of(patch), "{x:?} in patches of {patch}");
    let run = patch * x.c;
    let per_row = x.w / patch;
    (0..x.n * x.h * per_row).map(move |i| {
        let (row, j) = (i / per_row, i % per_row); // rows over the batch: each image has whole patches
        let (patch_row, r) = (row / patch, row % patch);
        (i * run, ((patch_row * per_row + j) * patch + r) * run)
    })
}

impl<B: HostBackend> Patch for B {
    fn patch_fold(&self, x: &Self::Tensor, patch: usize) -> Self::Tensor {
        let s = x.shape();
        let mut y = self.alloc(Shape::new(s.n, s.h / patch, s.w / patch, s.c * patch * patch));
        for (i, j) in runs(s, patch) {
            y[j..][..patch * s.c].copy_from_slice(&x[i..][..patch * s.c]);
        }
        y
    }
    fn patch_unfold(&self, y: &Self::Tensor, patch: usize) -> Self::Tensor {
        let s = y.shape();
        assert!(s.c.is_multiple_of(patch * patch), "unfolding {s:?} in patches of {patch}");
        let mut x = self.alloc(Shape::new(s.n, s.h * patch, s.w * patch, s.c / (patch * patch)));
        let (to, run) = (x.shape(), patch * x.shape().c);
        for (i, j) in runs(to, patch) {
            x[i..][..run].copy_from_slice(&y[j..][..run]);
        }
        x
    }
}
