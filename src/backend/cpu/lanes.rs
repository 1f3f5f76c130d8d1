//! Slices of any length as vectors: what elementwise ops and reductions over channels are made of.

use super::simd::{LANES, Simd};

/// Floats that one task of an elementwise op handles: a few such pieces of each operand fit in the second-level cache.
pub const PIECE: usize = 1 << 14;

/// The vector at `x[i..]`; lanes past the end are `pad`.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn get<S: Simd>(x: &[f32], i: usize, pad: f32) -> S::V {
    // SAFETY: the loads stay inside `x` and `tail`, which holds the widest vector.
    unsafe {
        if i + S::W <= x.len() {
            return S::load(x.as_ptr().add(i));
        }
        let mut tail = [pad; LANES];
        for (tail, x) in tail.iter_mut().zip(x.iter().skip(i)) {
            *tail = *x;
        }
        S::load(tail.as_ptr())
    }
}

/// Stores `v` at `y[i..]`; lanes past the end are dropped.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
pub unsafe fn put<S: Simd>(y: &mut [f32], i: usize, v: S::V) {
    // SAFETY: the stores stay inside `y` and `tail`, which holds the widest vector.
    unsafe {
        if i + S::W <= y.len() {
            return S::store(y.as_mut_ptr().add(i), v);
        }
        let mut tail = [0.0; LANES];
        S::store(tail.as_mut_ptr(), v);
        for (y, tail) in y.iter_mut().skip(i).zip(tail) {
            *y = tail;
        }
    }
}
