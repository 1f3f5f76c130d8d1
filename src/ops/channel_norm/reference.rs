//! channel_norm: the f64 definition.

use super::{ChannelNorm, EPS, Modulation};
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend};

fn mean(x: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = x.len() as f64;
    x.sum::<f64>() / count
}

/// dz of one pixel.
fn normalised_vjp(y: &[f64], rstd: f64, dy: &[f64]) -> Vec<f64> {
    let mean_dy = mean(dy.iter().copied());
    let mean_dy_y = mean(dy.iter().zip(y).map(|(dy, y)| dy * y));
    dy.iter().zip(y).map(|(dy, y)| rstd * (dy - mean_dy - y * mean_dy_y)).collect()
}

impl ChannelNorm for Reference {
    fn channel_norm_forward(&self, x: &Self::Tensor, m: Option<&Modulation<Self>>) -> (Self::Tensor, Self::Tensor) {
        let s = x.shape();
        let (mut y, mut rstd) = (self.alloc(s), self.alloc(s.with_c(1)));
        for (p, (y, x)) in y.chunks_exact_mut(s.c).zip(x.chunks_exact(s.c)).enumerate() {
            let mut z = x.to_vec();
            if let Some(m) = m {
                let abc = m.abc.row_or_shared(p / s.pixels());
                for c in 0..s.c {
                    z[c] = (abc[c] + 1.0) * x[c] + abc[s.c + c];
                }
            }
            let mean_z = mean(z.iter().copied());
            let var_z = mean(z.iter().map(|z| (z - mean_z).powi(2)));
            rstd[p] = 1.0 / (var_z + EPS).sqrt();
            for c in 0..s.c {
                y[c] = (z[c] - mean_z) * rstd[p];
            }
        }
        (y, rstd)
    }
    fn channel_norm_vjp(
        &self,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        m: Option<&Modulation<Self>>,
        dy: &Self::Tensor,
    ) -> Self::Tensor {
        let s = y.shape();
        let mut dx = self.alloc(s);
        for (p, dx) in dx.chunks_exact_mut(s.c).enumerate() {
            let pixel = p * s.c..(p + 1) * s.c;
            dx.copy_from_slice(&normalised_vjp(&y[pixel.clone()], rstd[p], &dy[pixel]));
            if let Some(m) = m {
                let abc = m.abc.row_or_shared(p / s.pixels());
                for c in 0..s.c {
                    dx[c] *= abc[c] + 1.0;
                }
            }
        }
        dx
    }
    fn channel_norm_vjp_params(
        &self,
        x: &Self::Tensor,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    ) {
        let (s, r) = (x.shape(), dabc.shape().n);
        for (p, x) in x.chunks_exact(s.c).enumerate() {
            let pixel = p * s.c..(p + 1) * s.c;
            let dz = normalised_vjp(&y[pixel.clone()], rstd[p], &dy[pixel]);
            let dabc = dabc.row_mut(p / s.pixels() % r);
            for c in 0..s.c {
                dabc[c] += x[c] * dz[c];
                dabc[s.c + c] += dz[c];
            }
        }
    }
}
