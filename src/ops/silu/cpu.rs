//! silu: the fast CPU form.

use super::Silu;
use crate::backend::cpu::Cpu;
use crate::backend::cpu::lanes::{PIECE, get, put};
use crate::backend::cpu::simd::{Body, Simd, dispatch};
use crate::backend::{Array, Backend, Keep};
use rayon::prelude::*;

/// y = silu(x), and its derivative where there is room for it.
struct Forward<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    derivative: Option<&'a mut [f32]>,
}

impl Body for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        // SAFETY: `dispatch` has checked the instruction set.
        unsafe {
            let one = S::splat(1.0);
            for i in (0..self.x.len()).step_by(S::W) {
                let x = get::<S>(self.x, i, 0.0);
                let s = S::div(one, S::add(one, S::exp(S::sub(S::zero(), x))));
                let y = S::mul(x, s);
                put::<S>(self.y, i, y);
                if let Some(derivative) = &mut self.derivative {
                    put::<S>(derivative, i, S::fma(y, S::sub(one, s), s));
                }
            }
        }
    }
}

/// dx = a b.
struct Multiply<'a> {
    a: &'a [f32],
    b: &'a [f32],
    y: &'a mut [f32],
}

impl Body for Multiply<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(self) {
        // SAFETY: `dispatch` has checked the instruction set.
        unsafe {
            for i in (0..self.y.len()).step_by(S::W) {
                put::<S>(self.y, i, S::mul(get::<S>(self.a, i, 0.0), get::<S>(self.b, i, 0.0)));
            }
        }
    }
}

impl Silu for Cpu {
    fn silu_forward(&self, x: &Self::Tensor, keep: Keep) -> (Self::Tensor, Option<Self::Tensor>) {
        let mut y = self.alloc(x.shape());
        let mut derivative = (keep != Keep::Nothing).then(|| self.alloc(x.shape()));
        let (isa, pieces) = (self.isa(), y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)));
        // SAFETY: the body has no pointers.
        let run = |x, y, derivative| unsafe { dispatch(isa, Forward { x, y, derivative }) };
        self.install(|| match &mut derivative {
            None => pieces.for_each(|(y, x)| run(x, y, None)),
            Some(derivative) => {
                pieces.zip(derivative.par_chunks_mut(PIECE)).for_each(|((y, x), d)| run(x, y, Some(d)));
            }
        });
        (y, derivative)
    }
    fn silu_vjp(&self, derivative: &Self::Tensor, dy: &Self::Tensor) -> Self::Tensor {
        let mut dx = self.alloc(dy.shape());
        assert_eq!(derivative.shape(), dy.shape());
        let isa = self.isa();
        self.install(|| {
            dx.par_chunks_mut(PIECE).zip(derivative.par_chunks(PIECE).zip(dy.par_chunks(PIECE))).for_each(
                |(y, (a, b))| {
                    // SAFETY: the body has no pointers.
                    unsafe { dispatch(isa, Multiply { a, b, y }) };
                },
            );
        });
        dx
    }
}
