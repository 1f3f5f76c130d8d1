//! adam: one generic form for the host backends.

use super::{Adam, AdamStep};
use crate::backend::host::{HostBackend, PART};
use crate::backend::{Array, Real};
use num_traits::Float;

impl<B: HostBackend> Adam for B {
    fn adam_step(
        &self,
        s: &AdamStep,
        p: &mut Self::Tensor,
        m: &mut Self::Tensor,
        v: &mut Self::Tensor,
        g: &Self::Tensor,
        norm: &Self::Tensor,
    ) {
        assert!([&*m, &*v, g].iter().all(|x| x.shape() == p.shape()), "Adam's arrays beside {:?}", p.shape());
        let norm = norm[0].f64();
        if !norm.is_finite() {
            return;
        }
        let (correction1, correction2) = s.bias_corrections();
        let clip = B::Elem::of((s.max_norm / (norm + 1e-6)).min(1.0));
        let of = B::Elem::of;
        let (beta1, rest1, beta2, rest2) = (of(s.betas.0), of(1.0 - s.betas.0), of(s.betas.1), of(1.0 - s.betas.1));
        let (rate, root, eps) = (of(s.lr / correction1), of(correction2.sqrt().recip()), of(s.eps));
        let keep = of(1.0 - s.lr * s.weight_decay);
        let moments = m.chunks_mut(PART).zip(v.chunks_mut(PART));
        let parts = p.chunks_mut(PART).zip(moments).zip(g.chunks(PART));
        self.each(parts.collect(), |((p, (m, v)), g)| {
            for ((p, (m, v)), g) in p.iter_mut().zip(m.iter_mut().zip(v)).zip(g) {
                let g = *g * clip;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *p = keep * *p - rate * *m / (root * v.sqrt() + eps);
            }
        });
    }
}
