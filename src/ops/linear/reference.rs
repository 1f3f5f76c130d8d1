//! linear: the f64 definition.

use super::Linear;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend};

/// The weights as given.
pub struct ReferenceLinear {
    c_in: usize,
    c_out: usize,
    w: Vec<f64>, // (c_out, c_in)
    b: Vec<f64>, // (c_out)
}

impl Linear for Reference {
    type Linear = ReferenceLinear;

    fn linear(&self, c_in: usize, c_out: usize, w: &Self::Tensor, b: Option<&Self::Tensor>) -> ReferenceLinear {
        let b = b.map_or(vec![0.0; c_out], |b| b.to_vec());
        assert_eq!((w.len(), b.len()), (c_in * c_out, c_out), "weights of a linear layer, {c_in} to {c_out}");
        ReferenceLinear { c_in, c_out, w: w.to_vec(), b }
    }
    fn linear_forward(&self, k: &ReferenceLinear, x: &Self::Tensor) -> Self::Tensor {
        assert_eq!(x.shape().c, k.c_in, "input of a linear layer");
        let mut y = self.alloc(x.shape().with_c(k.c_out));
        for (y, x) in y.chunks_exact_mut(k.c_out).zip(x.chunks_exact(k.c_in)) {
            for o in 0..k.c_out {
                y[o] = k.b[o] + (0..k.c_in).map(|c| k.w[o * k.c_in + c] * x[c]).sum::<f64>();
            }
        }
        y
    }
    fn linear_vjp(&self, k: &ReferenceLinear, dy: &Self::Tensor) -> Self::Tensor {
        assert_eq!(dy.shape().c, k.c_out, "gradient of a linear layer");
        let mut dx = self.alloc(dy.shape().with_c(k.c_in));
        for (dx, dy) in dx.chunks_exact_mut(k.c_in).zip(dy.chunks_exact(k.c_out)) {
            for c in 0..k.c_in {
                dx[c] = (0..k.c_out).map(|o| k.w[o * k.c_in + c] * dy[o]).sum();
            }
        }
        dx
    }
    fn linear_vjp_params(
        &self,
        k: &ReferenceLinear,
        x: &Self::Tensor,
        dy: &Self::Tensor,
        dw: &mut Self::Tensor,
        mut db: Option<&mut Self::Tensor>,
    ) {
        for (x, dy) in x.chunks_exact(k.c_in).zip(dy.chunks_exact(k.c_out)) {
            for o in 0..k.c_out {
                for c in 0..k.c_in {
                    dw[o * k.c_in + c] += dy[o] * x[c];
                }
                if let Some(db) = &mut db {
                    db[o] += dy[o];
                }
            }
        }
    }
}
