//! upsample: the fast CPU form.

use super::Upsample;
use crate::backend::cpu::Cpu;
use crate::backend::{Array, Backend, Shape};
use rayon::prelude::*;

impl Upsample for Cpu {
    fn upsample_forward(&self, x: &Self::Tensor) -> Self::Tensor {
        let s = x.shape();
        let mut y = self.alloc(Shape { h: 2 * s.h, w: 2 * s.w, ..s });
        self.install(|| {
            y.par_chunks_mut(4 * s.w * s.c).zip(x.par_chunks(s.w * s.c)).for_each(|(rows, x)| {
                let (upper, lower) = rows.split_at_mut(2 * s.w * s.c);
                for (pair, x) in upper.chunks_exact_mut(2 * s.c).zip(x.chunks_exact(s.c)) {
                    pair[..s.c].copy_from_slice(x);
                    pair[s.c..].copy_from_slice(x);
                }
                lower.copy_from_slice(upper);
            });
        });
        y
    }
    fn upsample_vjp(&self, dy: &Self::Tensor) -> Self::Tensor {
        let s = dy.shape();
        assert!(s.h % 2 == 0 && s.w % 2 == 0, "{s:?} is no upsampled array");
        let mut dx = self.alloc(Shape { h: s.h / 2, w: s.w / 2, ..s });
        self.install(|| {
            dx.par_chunks_mut(s.w / 2 * s.c).zip(dy.par_chunks(2 * s.w * s.c)).for_each(|(dx, rows)| {
                let (upper, lower) = rows.split_at(s.w * s.c);
                let pairs = upper.chunks_exact(2 * s.c).zip(lower.chunks_exact(2 * s.c));
                for (dx, (u, l)) in dx.chunks_exact_mut(s.c).zip(pairs) {
                    for (i, dx) in dx.iter_mut().enumerate() {
                        *dx = (u[i] + u[s.c + i]) + (l[i] + l[s.c + i]);
                    }
                }
            });
        });
        dx
    }
}
