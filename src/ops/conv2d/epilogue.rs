//! What a CPU convolution or linear layer does with its sums before they are stored.

use super::image::PerSample;
use crate::backend::Shape;
use crate::backend::cpu::SharedMut;
use crate::backend::cpu::simd::Simd;

/// Up to W channels of one output pixel.
#[derive(Clone, Copy)]
pub(crate) struct At {
    /// Sample.
    pub n: usize,
    /// Offset in the flat output of the first of the channels.
    pub offset: usize,
    /// First channel.
    pub c: usize,
    /// Channels, W except at the end.
    pub lanes: usize,
}

impl At {
    /// The pixel's values in an array shaped like the output.
    ///
    /// # Safety
    /// As for [`Simd`]; likewise below.
    #[inline(always)]
    unsafe fn of<S: Simd>(self, x: &[f32]) -> S::V {
        // SAFETY: the place is in the output, and so in an array of its extents.
        unsafe { self.load::<S>(x, self.offset) }
    }
    /// The channels' values in an array of one value per channel.
    #[inline(always)]
    unsafe fn channels<S: Simd>(self, x: &[f32]) -> S::V {
        // SAFETY: the array has the output's channels.
        unsafe { self.load::<S>(x, self.c) }
    }
    /// The channels' values for the pixel's sample.
    #[inline(always)]
    unsafe fn sample<S: Simd>(self, x: PerSample<'_>) -> S::V {
        // SAFETY: each row has the output's channels.
        unsafe { self.load::<S>(x.values(), x.at(self.n, self.c)) }
    }
    #[inline(always)]
    unsafe fn load<S: Simd>(self, x: &[f32], at: usize) -> S::V {
        debug_assert!(at + self.lanes <= x.len());
        // SAFETY: the caller's array has `lanes` elements there.
        unsafe {
            let x = x.as_ptr().add(at);
            if self.lanes == S::W { S::load(x) } else { S::load_partial(x, self.lanes) }
        }
    }
    /// Writes the pixel's values in an array shaped like the output.
    ///
    /// # Safety
    /// As for [`Simd`]; `y` has the output's extents, and no other worker has the pixel.
    #[inline(always)]
    pub unsafe fn store<S: Simd>(self, y: SharedMut<'_>, v: S::V) {
        // SAFETY: the offset and lanes are inside the output.
        unsafe {
            let y = y.ptr().add(self.offset);
            if self.lanes == S::W { S::store(y, v) } else { S::store_partial(y, v, self.lanes) }
        }
    }
}

/// The output value of a sum.
pub(crate) trait Epilogue: Copy + Send + Sync {
    /// What is stored for the sums `v`.
    ///
    /// # Safety
    /// As for [`Simd`]; `at` is a place in the output, which belongs to this worker.
    unsafe fn apply<S: Simd>(&self, v: S::V, at: At) -> S::V;
    /// Asks for the cache lines of its own arrays that the pixel at `offset` will touch; there may be no such pixel.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, _offset: usize) {}
}

/// v
#[derive(Clone, Copy)]
pub(crate) struct Plain;

impl Epilogue for Plain {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, v: S::V, _: At) -> S::V {
        v
    }
}

/// v + b
#[derive(Clone, Copy)]
pub(crate) struct Bias<'a>(pub &'a [f32]);

impl Epilogue for Bias<'_> {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, v: S::V, at: At) -> S::V {
        // SAFETY: the bias has a value for each channel.
        unsafe { S::add(v, at.channels::<S>(self.0)) }
    }
}

/// silu(v + b); writes its derivative where wanted.
#[derive(Clone, Copy)]
pub(crate) struct BiasSilu<'a> {
    /// (C)
    pub bias: &'a [f32],
    /// Shaped like the output.
    pub derivative: Option<SharedMut<'a>>,
}

impl Epilogue for BiasSilu<'_> {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, v: S::V, at: At) -> S::V {
        // SAFETY: the bias has a value for each channel, and the derivative the extents of the output.
        unsafe {
            let x = S::add(v, at.channels::<S>(self.bias));
            let one = S::splat(1.0);
            let s = S::recip(S::add(one, S::exp(S::sub(S::zero(), x))));
            let y = S::mul(x, s);
            if let Some(derivative) = self.derivative {
                at.store::<S>(derivative, S::fma(y, S::sub(one, s), s));
            }
            y
        }
    }
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, offset: usize) {
        if let Some(derivative) = self.derivative {
            // SAFETY: as for this function; a prefetch may have any address.
            unsafe { S::prefetch(derivative.ptr().cast_const().wrapping_add(offset)) };
        }
    }
}

/// v · factor
#[derive(Clone, Copy)]
pub(crate) struct Times<'a>(pub &'a [f32]);

impl Epilogue for Times<'_> {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, v: S::V, at: At) -> S::V {
        // SAFETY: the factor has the extents of the output.
        unsafe { S::mul(v, at.of::<S>(self.0)) }
    }
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, offset: usize) {
        // SAFETY: as for this function; a prefetch may have any address.
        unsafe { S::prefetch(self.0.as_ptr().wrapping_add(offset)) };
    }
}

/// r x + c r (v + b), the gated residual; writes the branch v + b where wanted.
#[derive(Clone, Copy)]
pub(crate) struct BiasResidual<'a> {
    /// (C)
    pub bias: &'a [f32],
    /// Shaped like the output.
    pub x: &'a [f32],
    /// (R, C)
    pub r: PerSample<'a>,
    /// (R, C)
    pub cr: PerSample<'a>,
    /// Shaped like the output.
    pub branch: Option<SharedMut<'a>>,
}

impl Epilogue for BiasResidual<'_> {
    #[inline(always)]
    unsafe fn apply<S: Simd>(&self, v: S::V, at: At) -> S::V {
        // SAFETY: bias and gates have a value for each channel, the other arrays the extents of the output.
        unsafe {
            let branch = S::add(v, at.channels::<S>(self.bias));
            if let Some(array) = self.branch {
                at.store::<S>(array, branch);
            }
            S::fma(at.sample::<S>(self.cr), branch, S::mul(at.sample::<S>(self.r), at.of::<S>(self.x)))
        }
    }
    #[inline(always)]
    unsafe fn prefetch<S: Simd>(&self, offset: usize) {
        // SAFETY: as for this function; a prefetch may have any address.
        unsafe { S::prefetch(self.x.as_ptr().wrapping_add(offset)) };
    }
}

/// An output array and what is done before storing.
#[derive(Clone, Copy)]
pub(crate) struct Store<'a, E> {
    /// (N, H, W, C)
    pub y: SharedMut<'a>,
    /// Its extents.
    pub shape: Shape,
    /// What happens to the sums.
    pub epilogue: E,
}

impl<E: Epilogue> Store<'_, E> {
    /// Where the channels of pixel (n, i, j) start.
    #[inline(always)]
    pub fn offset(&self, n: usize, i: usize, j: usize) -> usize {
        ((n * self.shape.h + i) * self.shape.w + j) * self.shape.c
    }
    /// Finishes the sums `v` of the channels `at`.
    ///
    /// # Safety
    /// As for [`Epilogue::apply`].
    #[inline(always)]
    pub unsafe fn put<S: Simd>(&self, v: S::V, at: At) {
        // SAFETY: the caller's obligation.
        unsafe { at.store::<S>(self.y, self.epilogue.apply::<S>(v, at)) };
    }
    /// Asks for the cache lines that the channels at `offset` will touch; there may be no such place.
    ///
    /// # Safety
    /// As for [`Simd`].
    #[inline(always)]
    pub unsafe fn ask<S: Simd>(&self, offset: usize) {
        // SAFETY: as for this function; a prefetch may have any address.
        unsafe {
            S::prefetch(self.y.ptr().cast_const().wrapping_add(offset));
            self.epilogue.prefetch::<S>(offset);
        }
    }
}
