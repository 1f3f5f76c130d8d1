//! Masked k-space, as in MRI: the centred orthonormal 2-D Fourier transform of a real image, of which some columns were measured.
//!
//! With frequencies and pixels counted from the centre, p = h - ⌊H/2⌋ and q = w - ⌊W/2⌋,
//!
//! (F x)_(p' q') = (H W)^(-1/2) Σ_(p q) x_(p q) exp(-2πi (p p'/H + q q'/W)),
//!
//! which numpy writes `fftshift(fft2(ifftshift(x), norm="ortho"))`. A x = mask · F x, as real and imaginary parts.
//!
//! A Aᵀ is no projection onto the measured columns, because Aᵀ forgets the imaginary part. Aᵀ A = Re(Fᴴ mask F) is diagonal in the
//! real basis of [`Hartley`], with the eigenvalue (m_q + m_(-q))/2 at the frequencies ±q: 1/2 where only one of the two was measured.

mod cpu;
mod cuda;
mod hartley;
mod reference;
mod transform;

pub use hartley::Hartley;
pub use transform::Transform;

use crate::backend::{Backend, Shape};

/// # Shapes
/// `x` (N, H, W, 1), `y` (N, H, W, 2), `mask` (R, 1, W, 1) of 0 and 1, R = 1 or N; H and W at most [`LARGEST`].
pub trait Fourier: Backend {
    /// mask · F x; 0 where the mask is 0.
    fn fourier_forward(&self, mask: &Self::Tensor, x: &Self::Tensor) -> Self::Tensor;
    /// Re(Fᴴ (mask · y)), whatever `y` is where the mask is 0.
    fn fourier_adjoint(&self, mask: &Self::Tensor, y: &Self::Tensor) -> Self::Tensor;
}

/// Pixels along a side of an image at most.
pub const LARGEST: usize = 4096;

/// The extents of an image for k-space of extents `y`; those of the mask must agree.
fn image(mask: Shape, y: Shape) -> Shape {
    assert_eq!(y.c, 2, "real and imaginary part: {y:?}");
    check(mask, y.with_c(1));
    y.with_c(1)
}

/// The extents of k-space for images `x`; those of the mask must agree.
fn k_space(mask: Shape, x: Shape) -> Shape {
    assert_eq!(x.c, 1, "one channel: {x:?}");
    check(mask, x);
    x.with_c(2)
}

fn check(mask: Shape, x: Shape) {
    assert!(mask.n == 1 || mask.n == x.n, "a mask of {} rows for {} samples", mask.n, x.n);
    assert_eq!(mask, Shape::new(mask.n, 1, x.w, 1), "extents of the mask for {x:?}");
    assert!(x.h.max(x.w) <= LARGEST, "images {x:?}");
}
