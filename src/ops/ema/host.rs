//! ema: one generic form for the host backends.

use super::Ema;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Real};

impl<B: HostBackend> Ema for B {
    fn ema_update(&self, e: &mut Self::Tensor, p: &Self::Tensor, decay: f64) {
        assert_eq!(e.shape(), p.shape(), "average of another array");
        let rate = B::Elem::of(1.0 - decay);
        for (e, p) in e.iter_mut().zip(p.iter()) {
            *e = *e + rate * (*p - *e);
        }
    }
}
