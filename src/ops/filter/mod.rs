//! A periodic convolution of every channel with one kernel, kept at every `stride`-th pixel: blur, and downsampling.
//!
//! y_(i j) = Σ_(a b) k_(a b) x_(s i + r - a, s j + c - b), indices modulo H and W, (r, c) = `anchor` and s = `stride`.
//!
//! It is a convolution, not a correlation: with stride 1 the image of a point is the kernel. Its adjoint puts 0 between the pixels of
//! y and correlates.

mod cuda;
mod host;
mod kernels;

pub(crate) use kernels::square;
pub use kernels::{bicubic, gaussian, motion};

use crate::backend::{Backend, Shape};

/// Where the kernel lies and what is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FilterSpec {
    /// The element of the kernel that multiplies x_(s i, s j): row and column.
    pub anchor: (usize, usize),
    /// Pixels of x from one of y to the next, along both sides.
    pub stride: usize,
}

impl FilterSpec {
    /// That of a blur by a kernel of `a` x `b` elements.
    pub fn blur(a: usize, b: usize) -> Self {
        Self { anchor: (a / 2, b / 2), stride: 1 }
    }
    /// Extents of y for images `x`; both sides must be multiples of the stride.
    pub fn filtered(self, x: Shape) -> Shape {
        let s = self.stride;
        assert!(x.h.is_multiple_of(s) && x.w.is_multiple_of(s), "every {s}th pixel of {x:?}");
        Shape { h: x.h / s, w: x.w / s, ..x }
    }
    /// Extents of x for `y`.
    pub fn image(self, y: Shape) -> Shape {
        Shape { h: y.h * self.stride, w: y.w * self.stride, ..y }
    }
}

/// # Shapes
/// `x` (N, H, W, C), `y` (N, H / s, W / s, C), `kernel` (1, A, B, 1), of any size.
pub trait Filter: Backend {
    /// The convolution.
    fn filter_forward(&self, kernel: &Self::Tensor, spec: FilterSpec, x: &Self::Tensor) -> Self::Tensor;
    /// Its adjoint.
    fn filter_adjoint(&self, kernel: &Self::Tensor, spec: FilterSpec, y: &Self::Tensor) -> Self::Tensor;
}
