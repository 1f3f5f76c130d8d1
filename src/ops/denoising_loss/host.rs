//! denoising_loss: one generic form for the host backends; a sample's sum is f64.

use super::{DenoisingLoss, weights};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};

impl<B: HostBackend> DenoisingLoss for B {
    fn denoising_loss(&self, d: &Self::Tensor, x: &Self::Tensor, sigma: &[f64]) -> (Self::Tensor, Self::Tensor) {
        let s = x.shape();
        assert_eq!(d.shape(), s, "a denoiser's output beside {s:?}");
        let (mut loss, mut dd) = (self.alloc(Shape::rows(s.n, 1)), self.alloc(s));
        let weights = weights(sigma, s.n);
        let rows = dd.chunks_mut(s.row()).zip(loss.iter_mut()).enumerate();
        self.each(rows.collect(), |(n, (dd, loss))| {
            let weight = weights[n % weights.len()];
            let scale = B::Elem::of(2.0 * weight / s.len() as f64);
            let mut squares = 0.0;
            for (dd, (d, x)) in dd.iter_mut().zip(d.row(n).iter().zip(x.row(n))) {
                let error = *d - *x;
                squares += error.f64() * error.f64();
                *dd = scale * error;
            }
            *loss = B::Elem::of(weight * squares / s.row() as f64);
        });
        (loss, dd)
    }
}
