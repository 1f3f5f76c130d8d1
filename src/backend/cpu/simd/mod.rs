//! Vectors of f32 behind one trait: AVX-512, AVX2 with FMA, and portable code.
//!
//! A kernel is a [`Body`]: code generic over the instruction set, which [`dispatch`] runs inside a function compiled for
//! that set. Whatever a body calls is `#[inline(always)]`, or goes through [`Simd::call`], because intrinsics only compile
//! to single instructions inside a function that has their target features.

mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use portable::Portable;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

/// The instruction sets that kernels are compiled for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isa {
    /// 16 lanes, 32 registers.
    Avx512,
    /// 8 lanes, 16 registers, FMA.
    Avx2,
    /// 4 lanes of plain Rust, for the compiler to vectorise.
    Portable,
}

impl Isa {
    /// All of them, the fastest first.
    pub const ALL: [Self; 3] = [Self::Avx512, Self::Avx2, Self::Portable];

    /// The fastest that this machine has.
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|isa| isa.available()).unwrap_or(Self::Portable)
    }
    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 | Self::Avx2 => false,
            Self::Portable => true,
        }
    }
    /// Lanes of a vector, [`Simd::W`].
    pub const fn lanes(self) -> usize {
        match self {
            Self::Avx512 => 16,
            Self::Avx2 => 8,
            Self::Portable => 4,
        }
    }
    /// Rows of the register block of a matrix product, the `MR` that [`dispatch`] gives a body.
    pub const fn block_rows(self) -> usize {
        match self {
            Self::Avx512 => 8,
            Self::Avx2 => 6,
            Self::Portable => 2,
        }
    }
}

/// The widest vector: sums over a multiple of this many elements have one order for all instruction sets ([`Sum`]).
pub(crate) const LANES: usize = 16;

/// One instruction set.
///
/// # Safety
/// Every function may only run where the set is available ([`Isa::available`]), inlined into [`Simd::call`]; a pointer
/// must be valid for the lanes that are read or written.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A vector.
    type V: Copy;
    /// Its lanes, 4, 8 or 16.
    const W: usize;

    /// Runs `body` inside a function compiled for this set: one that is not inlined into the caller's loops.
    unsafe fn call<B: Body>(body: B);

    /// `W` values from `p`, of any alignment.
    unsafe fn load(p: *const f32) -> Self::V;
    /// `W` values to `p`, of any alignment.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `W` values to `p`, aligned to the vector, past the caches where the target can: for what is not read soon. Others see
    /// them after [`Simd::fence`].
    #[inline(always)]
    unsafe fn stream(p: *mut f32, v: Self::V) {
        // SAFETY: as for this function.
        unsafe { Self::store(p, v) }
    }
    /// Orders earlier [`Simd::stream`]s before later stores.
    #[inline(always)]
    unsafe fn fence() {}
    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// a + b
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a - b
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// a b
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a / b, correctly rounded.
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a > b ? a : b, so that a NaN in `b` comes through.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// a < b ? a : b, so that a NaN in `b` comes through.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// a b + c, rounded once where the target has FMA.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// a 2^n for integral n in [-126, 127].
    unsafe fn scale2(a: Self::V, n: Self::V) -> Self::V;
    /// The sum of the lanes: upper half to lower half, down to one lane.
    unsafe fn hsum(a: Self::V) -> f32;
    /// Asks for the cache line at `p`, which may be any address, in the second-level cache.
    unsafe fn prefetch(p: *const f32);

    /// All lanes 0.
    #[inline(always)]
    unsafe fn zero() -> Self::V {
        // SAFETY: as for this function.
        unsafe { Self::splat(0.0) }
    }
    /// 1 / a, correctly rounded: the approximations differ between instruction sets.
    #[inline(always)]
    unsafe fn recip(a: Self::V) -> Self::V {
        // SAFETY: as for this function.
        unsafe { Self::div(Self::splat(1.0), a) }
    }
    /// The first `lanes` ≤ W values from `p`, the other lanes 0.
    #[inline(always)]
    unsafe fn load_partial(p: *const f32, lanes: usize) -> Self::V {
        let mut v = [0.0; LANES];
        // SAFETY: `v` has at least W elements; `p` is valid for `lanes`.
        unsafe {
            p.copy_to_nonoverlapping(v.as_mut_ptr(), lanes);
            Self::load(v.as_ptr())
        }
    }
    /// The first `lanes` ≤ W values to `p`.
    #[inline(always)]
    unsafe fn store_partial(p: *mut f32, v: Self::V, lanes: usize) {
        let mut values = [0.0; LANES];
        // SAFETY: `values` has at least W elements; `p` is valid for `lanes`.
        unsafe {
            Self::store(values.as_mut_ptr(), v);
            p.copy_from_nonoverlapping(values.as_ptr(), lanes);
        }
    }
    /// e^x to 2e-7 relative, x clamped to [-87, 88]; NaN stays NaN.
    ///
    /// # Reference
    /// Cephes `expf`: e^x = 2^n e^r with a two-part ln 2, and a polynomial of degree 7 in r.
    #[inline(always)]
    unsafe fn exp(x: Self::V) -> Self::V {
        // SAFETY: as for this function; |n| ≤ 127 by the clamp.
        unsafe {
            let x = Self::min(Self::splat(88.0), Self::max(Self::splat(-87.0), x));
            let n = Self::round(Self::mul(x, Self::splat(std::f32::consts::LOG2_E)));
            let r = Self::fma(n, Self::splat(-0.693_359_4), x);
            let r = Self::fma(n, Self::splat(2.121_944_4e-4), r);
            let mut p = Self::splat(1.987_569_1e-4);
            for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
                p = Self::fma(p, r, Self::splat(coefficient));
            }
            let p = Self::add(Self::fma(p, Self::mul(r, r), r), Self::splat(1.0));
            Self::scale2(p, n)
        }
    }
}

/// A sum in [`LANES`] lanes whatever the width of a vector, so that its bits are the same for AVX2 and AVX-512.
///
/// Element i of a sequence belongs to lane i mod 16: the vector that starts at element i goes to slot
/// (i / W) mod ([`LANES`] / W). Slots are meant to be compile-time constants (an unrolled loop over 0 .. [`Sum::SLOTS`]),
/// else the sums live in memory instead of registers.
#[derive(Clone, Copy)]
pub(crate) struct Sum<S: Simd>([S::V; LANES / 4]);

impl<S: Simd> Sum<S> {
    /// Vectors per 16 elements.
    pub const SLOTS: usize = LANES / S::W;

    /// Nothing summed.
    ///
    /// # Safety
    /// As for [`Simd`], here and below.
    #[inline(always)]
    pub unsafe fn zero() -> Self {
        // SAFETY: as for this function.
        Self([unsafe { S::zero() }; LANES / 4])
    }
    /// Adds `v`.
    #[inline(always)]
    pub unsafe fn add(&mut self, slot: usize, v: S::V) {
        // SAFETY: as for this function.
        self.0[slot] = unsafe { S::add(self.0[slot], v) };
    }
    /// Adds a b.
    #[inline(always)]
    pub unsafe fn fma(&mut self, slot: usize, a: S::V, b: S::V) {
        // SAFETY: as for this function.
        self.0[slot] = unsafe { S::fma(a, b, self.0[slot]) };
    }
    /// The sum of all lanes: upper half to lower half, down to one lane.
    #[inline(always)]
    pub unsafe fn total(mut self) -> f32 {
        let mut slots = Self::SLOTS;
        // SAFETY: as for this function.
        unsafe {
            while slots > 1 {
                slots /= 2;
                for i in 0..slots {
                    self.0[i] = S::add(self.0[i], self.0[i + slots]);
                }
            }
            S::hsum(self.0[0])
        }
    }
}

/// A kernel, generic over the instruction set; `MR` is the register block height that suits it.
pub(crate) trait Body {
    /// Does the work. To be `#[inline(always)]`.
    ///
    /// # Safety
    /// `S` must be available, and the kernel's own pointers valid, which whoever makes the body has to see to.
    unsafe fn run<S: Simd, const MR: usize>(self);
}

/// Runs `body` with the given instruction set.
///
/// # Panics
/// When the machine does not have it.
///
/// # Safety
/// The body's pointers must be valid for what it does.
#[inline]
pub(crate) unsafe fn dispatch<B: Body>(isa: Isa, body: B) {
    assert!(isa.available(), "this machine has no {isa:?}");
    // SAFETY: the instruction set is available; the rest is the caller's obligation.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => Avx512::call(body),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => Avx2::call(body),
            _ => Portable::call(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the arithmetic of one instruction set lane by lane against f64.
    struct Lanes;

    impl Body for Lanes {
        #[inline(always)]
        unsafe fn run<S: Simd, const MR: usize>(self) {
            let input: Vec<f32> = (0..LANES).map(|i| (i as f32 - 7.3) * 3.7).collect();
            let lanes = |v: S::V| {
                let mut out = [f32::NAN; LANES];
                // SAFETY: 16 elements hold a vector.
                unsafe { S::store(out.as_mut_ptr(), v) };
                out[..S::W].to_vec()
            };
            // SAFETY: 16 elements hold a vector.
            unsafe {
                let x = S::load(input.as_ptr());
                for (x, e) in input.iter().zip(lanes(S::exp(x))) {
                    let exact = (*x as f64).exp();
                    assert!((e as f64 - exact).abs() <= 2e-7 * exact, "exp {x}: {e}, exact {exact}");
                }
                // Multiples of 0.1 below 100: sums of 16 are off by a few units of the last place at most.
                let sum: f64 = input[..S::W].iter().map(|x| *x as f64).sum();
                assert!((S::hsum(x) as f64 - sum).abs() < 1e-4);
                assert_eq!(lanes(S::load_partial(input.as_ptr(), 3))[..4], [input[0], input[1], input[2], 0.0]);
                assert!(lanes(S::exp(S::splat(f32::NAN))).iter().all(|e| e.is_nan()));
                assert!(lanes(S::exp(S::splat(-1e30))).iter().all(|e| (0.0..1e-37).contains(e)));
                assert!(lanes(S::exp(S::splat(1e30))).iter().all(|e| e.is_finite() && *e > 1e38));
                let mut total = Sum::<S>::zero();
                for i in 0..Sum::<S>::SLOTS {
                    total.add(i, S::load(input[i * S::W..].as_ptr()));
                }
                assert_eq!(total.total(), halving_sum(&input));
            }
        }
    }

    fn halving_sum(x: &[f32]) -> f32 {
        let mut x = x.to_vec();
        while x.len() > 1 {
            let half = x.len() / 2;
            x = (0..half).map(|i| x[i] + x[i + half]).collect();
        }
        x[0]
    }

    #[test]
    fn every_available_set_computes_the_same() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            // SAFETY: the body has no pointers.
            unsafe { dispatch(isa, Lanes) };
        }
    }
}
