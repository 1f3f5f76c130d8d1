//! silu: the f64 definition.

use super::Silu;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Keep};

impl Silu for Reference {
    fn silu_forward(&self, x: &Self::Tensor, keep: Keep) -> (Self::Tensor, Option<Self::Tensor>) {
        let (mut y, mut derivative) = (self.alloc(x.shape()), self.alloc(x.shape()));
        for i in 0..x.len() {
            let s = 1.0 / (1.0 + (-x[i]).exp());
            y[i] = x[i] * s;
            derivative[i] = s + y[i] * (1.0 - s);
        }
        (y, (keep != Keep::Nothing).then_some(derivative))
    }
    fn silu_vjp(&self, derivative: &Self::Tensor, dy: &Self::Tensor) -> Self::Tensor {
        let mut dx = self.alloc(dy.shape());
        for i in 0..dy.len() {
            dx[i] = derivative[i] * dy[i];
        }
        dx
    }
}
