//! fourier on the CPU: FFTs, the samples in parallel.

use super::{Fourier, Transform, image, k_space};
use crate::backend::cpu::Cpu;
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend};

type Tensor = <Cpu as Backend>::Tensor;

impl Fourier for Cpu {
    fn fourier_forward(&self, mask: &Tensor, x: &Tensor) -> Tensor {
        let mut y = self.alloc(k_space(mask.shape(), x.shape()));
        let (row, transform) = (y.shape().row(), Transform::new(x.shape().h, x.shape().w));
        self.each(y.chunks_exact_mut(row).enumerate().collect(), |(n, y)| {
            let mask = mask.row_or_shared(n);
            transform.forward(|column| mask[column] != 0.0, x.row(n), y);
        });
        y
    }

    fn fourier_adjoint(&self, mask: &Tensor, y: &Tensor) -> Tensor {
        let mut x = self.alloc(image(mask.shape(), y.shape()));
        let (row, transform) = (x.shape().row(), Transform::new(x.shape().h, x.shape().w));
        self.each(x.chunks_exact_mut(row).enumerate().collect(), |(n, x)| {
            let mask = mask.row_or_shared(n);
            transform.adjoint(|column| mask[column] != 0.0, y.row(n), x);
        });
        x
    }
}
