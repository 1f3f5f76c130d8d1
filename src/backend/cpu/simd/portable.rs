//! Four lanes of plain Rust, which the compiler turns into the vectors that the target always has (SSE2, NEON).

use super::{Body, Simd};
use std::array::from_fn;

/// Plain Rust on `[f32; 4]`.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

type V = [f32; 4];

/// Whether a fused multiply-add is one instruction; elsewhere `mul_add` is a slow library call.
const FMA: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64", target_arch = "riscv64"));

impl Simd for Portable {
    type V = V;
    const W: usize = 4;

    #[inline(always)]
    unsafe fn call<B: Body>(body: B) {
        // SAFETY: plain Rust is always available.
        unsafe { body.run::<Self, 2>() }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        // SAFETY: the caller's pointer is valid for four values.
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        // SAFETY: the caller's pointer is valid for four values.
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        from_fn(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn max(a: V, b: V) -> V {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: V, b: V) -> V {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        from_fn(|i| if FMA { a[i].mul_add(b[i], c[i]) } else { a[i] * b[i] + c[i] })
    }
    #[inline(always)]
    unsafe fn round(a: V) -> V {
        a.map(f32::round_ties_even)
    }
    #[inline(always)]
    unsafe fn scale2(a: V, n: V) -> V {
        from_fn(|i| a[i] * f32::from_bits(((n[i] as i32 + 127) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn hsum(a: V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
}
