//! channel_norm: the fast CPU form.

use super::{ChannelNorm, EPS, Modulation};
use crate::backend::cpu::Cpu;
use crate::backend::cpu::lanes::{PIECE, get, put};
use crate::backend::cpu::simd::{Body, LANES, Simd, Sum, dispatch};
use crate::backend::{Array, Backend};
use rayon::prelude::*;

/// A piece of one sample: y and rstd of its pixels.
struct Forward<'a> {
    x: &'a [f32],
    ab: Option<(&'a [f32], &'a [f32])>, // (C) each
    y: &'a mut [f32],
    rstd: &'a mut [f32],
    c: usize,
}

impl Body for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let scale = 1.0 / self.c as f32;
        for (rstd, (y, x)) in self.rstd.iter_mut().zip(self.y.chunks_exact_mut(self.c).zip(self.x.chunks_exact(self.c)))
        {
            // SAFETY: `dispatch` has checked the instruction set.
            unsafe {
                let mut sum = Sum::<S>::zero();
                for block in (0..self.c).step_by(LANES) {
                    for slot in 0..Sum::<S>::SLOTS {
                        let i = block + slot * S::W;
                        let mut z = get::<S>(x, i, 0.0);
                        if let Some((a, b)) = self.ab {
                            z = S::add(S::fma(get::<S>(a, i, 0.0), z, z), get::<S>(b, i, 0.0));
                        }
                        put::<S>(y, i, z);
                        sum.add(slot, z);
                    }
                }
                let mean = sum.total() * scale;
                let mean_v = S::splat(mean);
                let mut squares = Sum::<S>::zero();
                for block in (0..self.c).step_by(LANES) {
                    for slot in 0..Sum::<S>::SLOTS {
                        let d = S::sub(get::<S>(y, block + slot * S::W, mean), mean_v);
                        squares.fma(slot, d, d);
                    }
                }
                *rstd = 1.0 / (squares.total() * scale + EPS as f32).sqrt();
                let rstd_v = S::splat(*rstd);
                for i in (0..self.c).step_by(S::W) {
                    put::<S>(y, i, S::mul(S::sub(get::<S>(y, i, 0.0), mean_v), rstd_v));
                }
            }
        }
    }
}

/// A piece of one sample: dx = (a + 1) dz + r dout, without a factor or term that is absent.
struct Vjp<'a> {
    y: &'a [f32],
    rstd: &'a [f32],
    dy: &'a [f32],
    a: Option<&'a [f32]>,                     // (C)
    residual: Option<(&'a [f32], &'a [f32])>, // r (C), dout
    dx: &'a mut [f32],
    c: usize,
}

/// (mean(dy), mean(dy y)) of one pixel.
#[inline(always)]
unsafe fn means<S: Simd>(y: &[f32], dy: &[f32]) -> (f32, f32) {
    // SAFETY: as the caller promises.
    unsafe {
        let (mut sum_dy, mut sum_dy_y) = (Sum::<S>::zero(), Sum::<S>::zero());
        for block in (0..dy.len()).step_by(LANES) {
            for slot in 0..Sum::<S>::SLOTS {
                let v = get::<S>(dy, block + slot * S::W, 0.0);
                sum_dy.add(slot, v);
                sum_dy_y.fma(slot, v, get::<S>(y, block + slot * S::W, 0.0));
            }
        }
        let scale = 1.0 / dy.len() as f32;
        (sum_dy.total() * scale, sum_dy_y.total() * scale)
    }
}

/// dz of the channels at `i` of one pixel.
#[inline(always)]
unsafe fn dz<S: Simd>(y: &[f32], dy: &[f32], i: usize, rstd: f32, (mean_dy, mean_dy_y): (f32, f32)) -> S::V {
    // SAFETY: as the caller promises.
    unsafe {
        let centred = S::sub(get::<S>(dy, i, 0.0), S::splat(mean_dy));
        S::mul(S::splat(rstd), S::fma(S::splat(-mean_dy_y), get::<S>(y, i, 0.0), centred))
    }
}

impl Body for Vjp<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        for (p, dx) in self.dx.chunks_exact_mut(self.c).enumerate() {
            let pixel = p * self.c..(p + 1) * self.c;
            let (y, dy) = (&self.y[pixel.clone()], &self.dy[pixel.clone()]);
            // SAFETY: `dispatch` has checked the instruction set.
            unsafe {
                let means = means::<S>(y, dy);
                for i in (0..self.c).step_by(S::W) {
                    let mut d = dz::<S>(y, dy, i, self.rstd[p], means);
                    if let Some(a) = self.a {
                        d = S::fma(get::<S>(a, i, 0.0), d, d);
                    }
                    if let Some((r, dout)) = self.residual {
                        d = S::fma(get::<S>(r, i, 0.0), get::<S>(&dout[pixel.clone()], i, 0.0), d);
                    }
                    put::<S>(dx, i, d);
                }
            }
        }
    }
}

/// One sample: (Σ_pixels x dz, Σ_pixels dz).
struct VjpParams<'a> {
    x: &'a [f32],
    y: &'a [f32],
    rstd: &'a [f32],
    dy: &'a [f32],
    sums: (&'a mut [f32], &'a mut [f32]), // (C) each
}

impl Body for VjpParams<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        let (da, db) = self.sums;
        let c = da.len();
        for (p, rstd) in self.rstd.iter().enumerate() {
            let pixel = p * c..(p + 1) * c;
            let (x, y, dy) = (&self.x[pixel.clone()], &self.y[pixel.clone()], &self.dy[pixel]);
            // SAFETY: `dispatch` has checked the instruction set.
            unsafe {
                let means = means::<S>(y, dy);
                for i in (0..c).step_by(S::W) {
                    let d = dz::<S>(y, dy, i, *rstd, means);
                    put::<S>(da, i, S::fma(get::<S>(x, i, 0.0), d, get::<S>(da, i, 0.0)));
                    put::<S>(db, i, S::add(get::<S>(db, i, 0.0), d));
                }
            }
        }
    }
}

impl Cpu {
    /// dx = norm's VJP of `dy`, plus r `dout`: the end of a block's VJP, whose residual path it adds.
    pub(crate) fn channel_norm_vjp_add(
        &self,
        y: &<Self as Backend>::Tensor,
        rstd: &<Self as Backend>::Tensor,
        m: &Modulation<Self>,
        dy: &<Self as Backend>::Tensor,
        dout: &<Self as Backend>::Tensor,
    ) -> <Self as Backend>::Tensor {
        self.vjp(y, rstd, Some(m), dy, Some(dout))
    }

    fn vjp(
        &self,
        y: &<Self as Backend>::Tensor,
        rstd: &<Self as Backend>::Tensor,
        m: Option<&Modulation<Self>>,
        dy: &<Self as Backend>::Tensor,
        dout: Option<&<Self as Backend>::Tensor>,
    ) -> <Self as Backend>::Tensor {
        let s = y.shape();
        assert!(dy.shape() == s && dout.is_none_or(|d| d.shape() == s), "{s:?}, {:?}", dy.shape());
        let mut dx = self.alloc(s);
        let (isa, c, pixels) = (self.isa(), s.c, (PIECE / s.c).max(1));
        self.install(|| {
            dx.par_chunks_mut(s.row()).enumerate().for_each(|(n, dx)| {
                let (y, rstd, dy) = (y.row(n), rstd.row(n), dy.row(n));
                let a = m.map(|m| &m.abc.row_or_shared(n)[..c]);
                let residual = m.zip(dout).map(|(m, dout)| (&m.gates.row_or_shared(n)[..c], dout.row(n)));
                dx.par_chunks_mut(pixels * c).enumerate().for_each(|(i, dx)| {
                    let piece = i * pixels * c..i * pixels * c + dx.len();
                    let body = Vjp {
                        y: &y[piece.clone()],
                        rstd: &rstd[i * pixels..],
                        dy: &dy[piece.clone()],
                        a,
                        residual: residual.map(|(r, dout)| (r, &dout[piece])),
                        dx,
                        c,
                    };
                    // SAFETY: the body has no pointers.
                    unsafe { dispatch(isa, body) };
                });
            });
        });
        dx
    }
}

impl ChannelNorm for Cpu {
    fn channel_norm_forward(&self, x: &Self::Tensor, m: Option<&Modulation<Self>>) -> (Self::Tensor, Self::Tensor) {
        let s = x.shape();
        let (mut y, mut rstd) = (self.alloc(s), self.alloc(s.with_c(1)));
        let (isa, c, pixels) = (self.isa(), s.c, (PIECE / s.c).max(1));
        self.install(|| {
            let samples = y.par_chunks_mut(s.row()).zip(rstd.par_chunks_mut(s.pixels())).zip(x.par_chunks(s.row()));
            samples.enumerate().for_each(|(n, ((y, rstd), x))| {
                let ab = m.map(|m| m.abc.row_or_shared(n)[..2 * c].split_at(c));
                y.par_chunks_mut(pixels * c).zip(rstd.par_chunks_mut(pixels)).zip(x.par_chunks(pixels * c)).for_each(
                    |((y, rstd), x)| {
                        // SAFETY: the body has no pointers.
                        unsafe { dispatch(isa, Forward { x, ab, y, rstd, c }) };
                    },
                );
            });
        });
        (y, rstd)
    }
    fn channel_norm_vjp(
        &self,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        m: Option<&Modulation<Self>>,
        dy: &Self::Tensor,
    ) -> Self::Tensor {
        self.vjp(y, rstd, m, dy, None)
    }
    fn channel_norm_vjp_params(
        &self,
        x: &Self::Tensor,
        y: &Self::Tensor,
        rstd: &Self::Tensor,
        dy: &Self::Tensor,
        dabc: &mut Self::Tensor,
    ) {
        let isa = self.isa();
        self.add_sample_sums(x.shape().n, 0..2 * x.shape().c, dabc, |n, sums| {
            let sums = sums.split_at_mut(sums.len() / 2);
            // SAFETY: the body has no pointers.
            unsafe { dispatch(isa, VjpParams { x: x.row(n), y: y.row(n), rstd: rstd.row(n), dy: dy.row(n), sums }) };
        });
    }
}
