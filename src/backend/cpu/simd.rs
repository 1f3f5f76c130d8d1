//! Minimal SIMD abstraction: AVX-512, AVX2+FMA, portable scalar. Everything is `inline(always)` so that
//! it inlines into the `#[target_feature]` entry points of `dispatch`.
#![allow(missing_docs, clippy::all)] // being tidied
use std::arch::x86_64::*;

pub trait Simd: Copy + Send + Sync + 'static {
    type V: Copy;
    const W: usize;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    unsafe fn round(a: Self::V) -> Self::V;
    /// a * 2^n for integral n in [-126, 127]
    unsafe fn scale2(a: Self::V, n: Self::V) -> Self::V;
    unsafe fn hsum(a: Self::V) -> f32;
    /// 1 / a, about 1 ulp
    #[inline(always)]
    unsafe fn recip(a: Self::V) -> Self::V {
        unsafe { Self::div(Self::splat(1.0), a) }
    }
    /// non-temporal store (aligned)
    #[inline(always)]
    unsafe fn stream(p: *mut f32, v: Self::V) {
        unsafe { Self::store(p, v) }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p as *const i8) }
    }
    unsafe fn hmax(a: Self::V) -> f32;
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        unsafe { Self::splat(0.0) }
    }
    /// e^x, relative error about 2e-7; clamped to [-87, 88]
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        unsafe {
            let x = Self::min(Self::max(x, Self::splat(-87.0)), Self::splat(88.0));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            p = Self::fma(p, r, Self::splat(1.398_199_9e-3));
            p = Self::fma(p, r, Self::splat(8.333_452e-3));
            p = Self::fma(p, r, Self::splat(4.166_579_6e-2));
            p = Self::fma(p, r, Self::splat(1.666_666_5e-1));
            p = Self::fma(p, r, Self::splat(0.5));
            let r2 = Self::mul(r, r);
            let p = Self::add(Self::fma(p, r2, r), Self::splat(1.0));
            Self::scale2(p, n)
        }
    }
}

#[derive(Clone, Copy)]
pub struct Avx512;
#[derive(Clone, Copy)]
pub struct Avx2;
#[derive(Clone, Copy)]
pub struct Portable;

impl Simd for Avx512 {
    type V = __m512;
    const W: usize = 16;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m512) -> __m512 {
        unsafe { _mm512_roundscale_ps::<0x08>(a) }
    }
    #[inline(always)]
    unsafe fn scale2(a: __m512, n: __m512) -> __m512 {
        unsafe { _mm512_scalef_ps(a, n) }
    }
    #[inline(always)]
    unsafe fn recip(a: __m512) -> __m512 {
        unsafe {
            let r = _mm512_rcp14_ps(a);
            let e = _mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0));
            _mm512_fmadd_ps(r, e, r)
        }
    }
    #[inline(always)]
    unsafe fn stream(p: *mut f32, v: __m512) {
        unsafe { _mm512_stream_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn hsum(a: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(a) }
    }
    #[inline(always)]
    unsafe fn hmax(a: __m512) -> f32 {
        unsafe { _mm512_reduce_max_ps(a) }
    }
}

impl Simd for Avx2 {
    type V = __m256;
    const W: usize = 8;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn max(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn min(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn round(a: __m256) -> __m256 {
        unsafe { _mm256_round_ps::<0x08>(a) }
    }
    #[inline(always)]
    unsafe fn scale2(a: __m256, n: __m256) -> __m256 {
        unsafe {
            let i = _mm256_slli_epi32::<23>(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)));
            _mm256_mul_ps(a, _mm256_castsi256_ps(i))
        }
    }
    #[inline(always)]
    unsafe fn recip(a: __m256) -> __m256 {
        unsafe {
            let r = _mm256_rcp_ps(a);
            let e = _mm256_fnmadd_ps(a, r, _mm256_set1_ps(1.0));
            _mm256_fmadd_ps(r, e, r)
        }
    }
    #[inline(always)]
    unsafe fn hsum(a: __m256) -> f32 {
        let v: [f32; 8] = unsafe { std::mem::transmute(a) };
        v.iter().sum()
    }
    #[inline(always)]
    unsafe fn hmax(a: __m256) -> f32 {
        let v: [f32; 8] = unsafe { std::mem::transmute(a) };
        v.iter().fold(f32::MIN, |a, &b| a.max(b))
    }
}

impl Simd for Portable {
    type V = [f32; 4];
    const W: usize = 4;
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        unsafe { (p as *const [f32; 4]).read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        unsafe { (p as *mut [f32; 4]).write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] += b[i]
        }
        r
    }
    #[inline(always)]
    unsafe fn sub(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] -= b[i]
        }
        r
    }
    #[inline(always)]
    unsafe fn mul(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] *= b[i]
        }
        r
    }
    #[inline(always)]
    unsafe fn div(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] /= b[i]
        }
        r
    }
    #[inline(always)]
    unsafe fn max(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] = r[i].max(b[i])
        }
        r
    }
    #[inline(always)]
    unsafe fn min(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] = r[i].min(b[i])
        }
        r
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        let mut r = c;
        for i in 0..4 {
            r[i] += a[i] * b[i]
        }
        r
    }
    #[inline(always)]
    unsafe fn round(a: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] = r[i].round_ties_even()
        }
        r
    }
    #[inline(always)]
    unsafe fn scale2(a: [f32; 4], n: [f32; 4]) -> [f32; 4] {
        let mut r = a;
        for i in 0..4 {
            r[i] *= f32::from_bits(((n[i] as i32 + 127) << 23) as u32)
        }
        r
    }
    #[inline(always)]
    unsafe fn hsum(a: [f32; 4]) -> f32 {
        a.iter().sum()
    }
    #[inline(always)]
    unsafe fn hmax(a: [f32; 4]) -> f32 {
        a.iter().fold(f32::MIN, |a, &b| a.max(b))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    Avx512,
    Avx2,
    Portable,
}
impl Isa {
    pub fn detect() -> Isa {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
        {
            Isa::Avx512
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            Isa::Avx2
        } else {
            Isa::Portable
        }
    }
    /// rows of the register block
    pub fn mr(self) -> usize {
        match self {
            Isa::Avx512 => 8,
            Isa::Avx2 => 6,
            Isa::Portable => 2,
        }
    }
    pub fn w(self) -> usize {
        match self {
            Isa::Avx512 => 16,
            Isa::Avx2 => 8,
            Isa::Portable => 4,
        }
    }
    /// output channels per weight panel
    pub fn nr(self) -> usize {
        2 * self.w()
    }
}

pub const NV: usize = 2;

/// A body generic over the instruction set; `MR` is the register block height that suits it.
pub trait Body {
    unsafe fn run<S: Simd, const MR: usize>(self);
}
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
unsafe fn e512<B: Body, const MR: usize>(b: B) {
    unsafe { b.run::<Avx512, MR>() }
}
#[target_feature(enable = "avx2,fma")]
unsafe fn e2<B: Body>(b: B) {
    unsafe { b.run::<Avx2, 6>() }
}
#[inline(always)]
pub fn dispatch<B: Body>(isa: Isa, b: B) {
    unsafe {
        match isa {
            Isa::Avx512 => e512::<B, 8>(b),
            Isa::Avx2 => e2::<B>(b),
            Isa::Portable => b.run::<Portable, 2>(),
        }
    }
}
