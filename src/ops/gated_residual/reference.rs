//! gated_residual: the f64 definition.

use super::GatedResidual;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend};
use crate::ops::channel_norm::Modulation;

impl GatedResidual for Reference {
    fn gates(&self, abc: &Self::Tensor) -> Self::Tensor {
        let channels = abc.shape().c / 3;
        let mut gates = self.alloc(abc.shape().with_c(2 * channels));
        for n in 0..abc.shape().n {
            let (gates, abc) = (gates.row_mut(n), abc.row(n));
            for i in 0..channels {
                let c = abc[2 * channels + i];
                let r = 1.0 / (1.0 + c * c).sqrt();
                (gates[i], gates[channels + i]) = (r, c * r);
            }
        }
        gates
    }
    fn gated_residual_forward(&self, x: &Self::Tensor, branch: &Self::Tensor, m: &Modulation<Self>) -> Self::Tensor {
        let s = x.shape();
        let mut y = self.alloc(s);
        for i in 0..x.len() {
            let gates = m.gates.row_or_shared(i / s.row());
            let (r, cr) = (gates[i % s.c], gates[s.c + i % s.c]);
            y[i] = r * x[i] + cr * branch[i];
        }
        y
    }
    fn gated_residual_vjp(&self, m: &Modulation<Self>, dy: &Self::Tensor) -> (Self::Tensor, Self::Tensor) {
        let s = dy.shape();
        let (mut dx, mut dbranch) = (self.alloc(s), self.alloc(s));
        for i in 0..dy.len() {
            let gates = m.gates.row_or_shared(i / s.row());
            dx[i] = gates[i % s.c] * dy[i];
            dbranch[i] = gates[s.c + i % s.c] * dy[i];
        }
        (dx, dbranch)
    }
    fn gated_residual_vjp_params(
        &self,
        x: &Self::Tensor,
        branch: &Self::Tensor,
        m: &Modulation<Self>,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    ) {
        let (s, rows) = (x.shape(), dabc.shape().n);
        for i in 0..x.len() {
            let (n, channel) = (i / s.row(), i % s.c);
            let c = m.abc.row_or_shared(n)[2 * s.c + channel];
            let r = m.gates.row_or_shared(n)[channel];
            dabc.row_mut(n % rows)[2 * s.c + channel] +=
                dy[i] * (branch[i] * r - (x[i] + c * branch[i]) * c * r.powi(3));
        }
    }
}
