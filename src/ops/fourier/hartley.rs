//! The real basis in which masked k-space is diagonal.

use super::transform::Line;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use std::sync::Arc;

/// The centred orthonormal Hartley transform Q along the rows of an image, which is its own inverse:
///
/// (Q x)_q' = W^(-1/2) Σ_q x_q (cos + sin)(2π q q'/W), q counted from ⌊W/2⌋.
///
/// A real image needs no more frequencies than it has pixels. For a mask m of the columns of k-space and A x = mask · F x,
/// Aᵀ A = Q s Q in every row, s_q = (m_q + m_(-q))/2: the transform along the columns is unitary and cancels, and Re(Fᴴ m F)
/// along the rows is a symmetric circulant matrix.
pub struct Hartley {
    h: usize,
    w: usize,
    fft: Arc<dyn Fft<f64>>,
}

impl Hartley {
    /// That of images of `h` x `w` pixels.
    pub fn new(h: usize, w: usize) -> Self {
        Self { h, w, fft: FftPlanner::new().plan_fft_forward(w) }
    }
    /// Q x, column by column: those of one frequency lie together.
    ///
    /// # Shapes
    /// `x` (H, W), the result (W, H).
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        let mut c = vec![0.0; x.len()];
        self.transform(|row, q| x[row * self.w + q], |row, q, value| c[q * self.h + row] = value);
        c
    }
    /// Its inverse.
    ///
    /// # Shapes
    /// `c` (W, H), the result (H, W).
    pub fn inverse(&self, c: &[f64]) -> Vec<f64> {
        let mut x = vec![0.0; c.len()];
        self.transform(|row, q| c[q * self.h + row], |row, q, value| x[row * self.w + q] = value);
        x
    }
    /// s_q of a mask (W): 0, 1/2 or 1.
    pub fn eigenvalues(mask: &[u8]) -> Vec<f64> {
        let (w, twice_c) = (mask.len(), mask.len() / 2 * 2);
        (0..w).map(|q| f64::from(mask[q] + mask[(twice_c + w - q) % w]) / 2.0).collect()
    }

    fn transform(&self, load: impl Fn(usize, usize) -> f64, mut store: impl FnMut(usize, usize, f64)) {
        let scale = 1.0 / (self.w as f64).sqrt();
        let mut line = Line::new(&*self.fft);
        for row in 0..self.h {
            let real = |q: usize| Complex::new(load(row, q), 0.0);
            line.transform(real, |q, value| store(row, q, scale * (value.re - value.im))); // exp(-iθ) = cos θ - i sin θ
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::fourier::Transform;
    use crate::ops::noise::{Purpose, Stream};

    fn normals(len: usize) -> Vec<f64> {
        let block = |block| Stream::new(3, Purpose::Test).normals(0, block);
        (0..len.div_ceil(4) as u32).flat_map(block).take(len).collect()
    }

    #[test]
    fn it_is_orthonormal_and_its_own_inverse() {
        for (h, w) in [(3, 7), (4, 8), (1, 1), (2, 320)] {
            let (hartley, x) = (Hartley::new(h, w), normals(h * w));
            let c = hartley.forward(&x);
            let square = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
            // a few roundings per element
            assert!((square(&c) / square(&x) - 1.0).abs() < 1e-14, "{h} x {w}");
            assert!(hartley.inverse(&c).iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-13), "{h} x {w}");
        }
    }

    /// Aᵀ A x = Q s Q x, which has 0, halves and ones.
    #[test]
    fn masked_k_space_is_diagonal() {
        for (h, w) in [(5, 9), (6, 8), (3, 1), (1, 2)] {
            let mask: Vec<u8> = normals(w).iter().map(|z| u8::from(*z > -0.2)).collect();
            let (x, transform, hartley) = (normals(h * w), Transform::new(h, w), Hartley::new(h, w));
            let (mut y, mut normal) = (vec![f64::NAN; 2 * h * w], vec![f64::NAN; h * w]);
            transform.forward(|q| mask[q] == 1, &x, &mut y);
            transform.adjoint(|q| mask[q] == 1, &y, &mut normal);
            let s = Hartley::eigenvalues(&mask);
            let mut c = hartley.forward(&x);
            c.iter_mut().enumerate().for_each(|(i, c)| *c *= s[i / h]);
            for (found, expected) in hartley.inverse(&c).iter().zip(&normal) {
                assert!((found - expected).abs() < 1e-13, "{h} x {w}: {found} {expected}"); // sums of numbers near 1
            }
        }
        assert_eq!(Hartley::eigenvalues(&[1, 0, 1, 1]), [1.0, 0.5, 1.0, 0.5]);
        assert_eq!(Hartley::eigenvalues(&[1, 0, 1]), [1.0, 0.0, 1.0]);
    }
}
