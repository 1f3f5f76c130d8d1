//! ema: one generic form for the host backends.

use super::Ema;
use crate::backend::host::{HostBackend, PART};
use crate::backend::{Array, Real};

impl<B: HostBackend> Ema for B {
    fn ema_update(&self, e: &mut Self::Tensor, p: &Self::Tensor, decay: f64) {
        assert_eq!(e.shape(), p.shape(), "average of another array");
        let rate = B::Elem::of(1.0 - decay);
        self.each(e.chunks_mut(PART).zip(p.chunks(PART)).collect(), |(e, p)| {
            e.iter_mut().zip(p).for_each(|(e, p)| *e = *e + rate * (*p - *e));
        });
    }
}
