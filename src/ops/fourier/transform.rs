//! The transform of one image in host memory, by FFTs along its rows and the columns that count.

use crate::backend::Real;
use rustfft::num_complex::Complex;
use rustfft::{Fft, FftDirection, FftNum, FftPlanner};
use std::sync::Arc;

/// The centred orthonormal 2-D Fourier transform of images of H x W pixels. Each FFT is one call for one row or column: what is
/// transformed beside it cannot change its bits.
pub struct Transform<T> {
    h: usize,
    w: usize,
    rows: [Arc<dyn Fft<T>>; 2], // forward, inverse
    columns: [Arc<dyn Fft<T>>; 2],
}

impl<T: FftNum + Real> Transform<T> {
    /// That of images of `h` x `w` pixels.
    pub fn new(h: usize, w: usize) -> Self {
        let mut planner = FftPlanner::new();
        let mut both = |n| [FftDirection::Forward, FftDirection::Inverse].map(|to| planner.plan_fft(n, to));
        Self { h, w, rows: both(w), columns: both(h) }
    }

    /// `y` = F x in the columns where `kept`, else 0.
    ///
    /// # Shapes
    /// `x` (H, W), `y` (H, W, 2).
    pub fn forward(&self, kept: impl Fn(usize) -> bool, x: &[T], y: &mut [T]) {
        let (h, w, scale) = (self.h, self.w, self.scale());
        let mut rows = vec![Complex::default(); h * w];
        let mut line = Line::new(&*self.rows[0]);
        for (x, row) in x.chunks_exact(w).zip(rows.chunks_exact_mut(w)) {
            line.transform(|j| Complex::new(x[j], T::zero()), |k, value| row[k] = value);
        }
        y.fill(T::zero());
        let mut line = Line::new(&*self.columns[0]);
        for column in (0..w).filter(|&column| kept(column)) {
            let store = |k: usize, value: Complex<T>| {
                let at = 2 * (k * w + column);
                (y[at], y[at + 1]) = (scale * value.re, scale * value.im);
            };
            line.transform(|j| rows[j * w + column], store);
        }
    }

    /// `x` = Re(Fᴴ y), without the columns that are not `kept`.
    ///
    /// # Shapes
    /// As of [`Transform::forward`].
    pub fn adjoint(&self, kept: impl Fn(usize) -> bool, y: &[T], x: &mut [T]) {
        let (h, w, scale) = (self.h, self.w, self.scale());
        let mut columns = vec![Complex::default(); h * w];
        let mut line = Line::new(&*self.columns[1]);
        for column in (0..w).filter(|&column| kept(column)) {
            let load = |j: usize| Complex::new(y[2 * (j * w + column)], y[2 * (j * w + column) + 1]);
            line.transform(load, |k, value| columns[k * w + column] = value);
        }
        let mut line = Line::new(&*self.rows[1]);
        for (x, row) in x.chunks_exact_mut(w).zip(columns.chunks_exact(w)) {
            line.transform(|j| row[j], |k, value| x[k] = scale * value.re);
        }
    }

    fn scale(&self) -> T {
        T::of(1.0 / ((self.h * self.w) as f64).sqrt())
    }
}

/// A row or column, and its FFT.
pub(crate) struct Line<'a, T> {
    fft: &'a dyn Fft<T>,
    line: Vec<Complex<T>>,
    scratch: Vec<Complex<T>>,
}

impl<'a, T: FftNum + Real> Line<'a, T> {
    /// For lines as long as those of `fft`.
    pub fn new(fft: &'a dyn Fft<T>) -> Self {
        let zeros = |len| vec![Complex::default(); len];
        Self { fft, line: zeros(fft.len()), scratch: zeros(fft.get_inplace_scratch_len()) }
    }
    /// Σ_j x_j exp(∓ 2πi (k - c)(j - c)/n) for every k, c = ⌊n/2⌋, from `load` to `store`.
    pub fn transform(&mut self, load: impl Fn(usize) -> Complex<T>, mut store: impl FnMut(usize, Complex<T>)) {
        let n = self.line.len();
        for (j, value) in self.line.iter_mut().enumerate() {
            *value = load((j + n / 2) % n);
        }
        self.fft.process_with_scratch(&mut self.line, &mut self.scratch);
        for (k, value) in self.line.iter().enumerate() {
            store((k + n / 2) % n, *value);
        }
    }
}
