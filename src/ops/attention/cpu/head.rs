//! One head: its extents, where its numbers are, and how they are packed.

use super::panels::{Tiles, pack, pack_transposed, panel_width, product_transposed};
use crate::backend::Shape;
use crate::backend::cpu::SharedMut;
use crate::backend::cpu::lanes::put;
use crate::backend::cpu::simd::{Isa, Simd};
use std::f32::consts::LOG2_E;
use std::ops::Range;

/// Extents of one head.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// Tokens.
    pub t: usize,
    /// Channels of all heads.
    pub c: usize,
    /// Channels of this one.
    pub d: usize,
    /// Its first channel.
    pub first: usize,
    /// Queries of a panel.
    pub nr: usize,
    /// Tokens, rounded up to whole register blocks: the rows of a panel.
    pub height: usize,
}

impl Head {
    /// Of queries, keys and values of shape `qkv`.
    pub fn new(isa: Isa, qkv: Shape, heads: usize, head: usize) -> Self {
        let (t, c) = (qkv.pixels(), qkv.c / 3);
        assert!(3 * c == qkv.c && heads > 0 && c.is_multiple_of(heads), "{heads} heads of {qkv:?}");
        let d = c / heads;
        Self { t, c, d, first: head * d, nr: 2 * isa.lanes(), height: t.next_multiple_of(isa.block_rows()) }
    }
    /// Panels of queries.
    pub fn panels(self) -> usize {
        self.t.div_ceil(self.nr)
    }
    /// The queries of a panel.
    pub fn queries(self, panel: usize) -> Range<usize> {
        panel * self.nr..self.t.min((panel + 1) * self.nr)
    }
    /// Floats of a panel with one row per token.
    pub fn column(self) -> usize {
        self.height * self.nr
    }
    /// Panels of channels.
    pub fn widths(self) -> usize {
        self.d.div_ceil(self.nr)
    }
    /// Floats of the queries, keys, values or their gradients as panels.
    pub fn matrix(self) -> usize {
        self.widths() * self.column()
    }
    /// 1/√d.
    pub fn scale(self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }
    /// Where `which` (0 queries, 1 keys, 2 values) of `token` begins in a sample of qkv.
    pub fn at(self, token: usize, which: usize) -> usize {
        (3 * token + which) * self.c + self.first
    }
    /// All keys (1) or values (2) of a sample of qkv, packed.
    ///
    /// # Safety
    /// The CPU has the instructions of `S`, here and below.
    #[inline(always)]
    pub unsafe fn pack<S: Simd>(self, qkv: &[f32], which: usize, out: &mut [f32]) {
        let x = (&qkv[self.at(0, which)..], 3 * self.c);
        // SAFETY: as the caller promises.
        unsafe { pack::<S>(x, self.t, self.d, self.height, |_| 1.0, out) };
    }
    /// The queries of a panel, transposed, scaled so that scores are exponents of 2.
    #[inline(always)]
    pub unsafe fn pack_queries<S: Simd>(self, qkv: &[f32], panel: usize, out: &mut [f32]) {
        let queries = self.queries(panel);
        let x = (&qkv[self.at(queries.start, 0)..], 3 * self.c);
        pack_transposed::<S>(x, queries.len(), self.d, |_| self.scale() * LOG2_E, out);
    }
    /// Aᵀ B, A a panel of queries with one row per key, B all panels of a matrix with one row per key: one row per
    /// query, times a factor each, at `out[start..]` and every `ld` from there.
    #[inline(always)]
    pub unsafe fn into_tokens<S: Simd>(
        self,
        (a, b): (&[f32], &[f32]),
        (out, start, ld): (SharedMut, usize, usize),
        factors: &[f32],
    ) {
        for (first, b) in (0..self.d).step_by(self.nr).zip(b.chunks_exact(self.column())) {
            let width = self.nr.min(self.d - first);
            let mut rows = Rows { out, start: start + first, ld, width, factors };
            // SAFETY: as the caller promises.
            unsafe {
                if width > S::W {
                    product_transposed::<S, 2>(factors.len(), self.t, a, b, &mut rows);
                } else {
                    product_transposed::<S, 1>(factors.len(), self.t, a, b, &mut rows);
                }
            }
        }
    }
}

/// Stores tiles in rows outside of panels, times a factor each.
struct Rows<'a> {
    out: SharedMut<'a>,
    start: usize,
    ld: usize,
    width: usize,
    factors: &'a [f32], // one for each row that exists
}

impl<S: Simd> Tiles<S> for Rows<'_> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]) {
        for i in 0..MR {
            if row + i < self.factors.len() {
                // SAFETY: tasks write different tokens or heads; else as for the trait.
                unsafe {
                    let out = self.out.slice(self.start + (row + i) * self.ld, self.width);
                    let factor = S::splat(self.factors[row + i]);
                    for j in 0..NV {
                        put::<S>(out, j * S::W, S::mul(factor, acc[i][j]));
                    }
                }
            }
        }
    }
}

/// Cuts `len` floats off the scratch.
pub(super) fn cut<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    scratch.split_off_mut(..len).expect("the scratch is sized for all of its parts")
}

/// The vectors of one row of a panel.
#[inline(always)]
pub(super) unsafe fn row<S: Simd>(x: &[f32]) -> [S::V; 2] {
    let x = &x[..panel_width::<S>()];
    // SAFETY: the slice is two vectors; the instruction set as the caller promises.
    unsafe { [S::load(x.as_ptr()), S::load(x.as_ptr().add(S::W))] }
}
