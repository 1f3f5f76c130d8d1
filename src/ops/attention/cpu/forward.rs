//! Scores, softmax and output of some query panels of one head.

use super::head::{Head, cut, row};
use super::panels::{Tiles, panel_width, product, store_tile};
use crate::backend::cpu::SharedMut;
use crate::backend::cpu::simd::{Body, LANES, Simd};
use std::ops::Range;

/// Arguments of the task.
pub(super) struct Forward<'a> {
    pub h: Head,
    /// Query panels.
    pub panels: Range<usize>,
    /// (T, 3 C) of the sample.
    pub qkv: &'a [f32],
    /// Of the batch, and where the sample begins.
    pub o: (SharedMut<'a>, usize),
    /// A copy of o that is kept.
    pub kept_o: Option<SharedMut<'a>>,
    /// What is kept, of all heads of the batch.
    pub stats: Option<SharedMut<'a>>,
    /// What is saved, of all heads of the batch.
    pub e: Option<SharedMut<'a>>,
    /// Sample and head, counted through.
    pub head: usize,
    /// At least [`Forward::scratch`].
    pub scratch: &'a mut [f32],
}

impl Forward<'_> {
    /// Floats of scratch.
    pub fn scratch(h: Head) -> usize {
        2 * h.matrix() + h.d * h.nr + h.column()
    }
}

impl Body for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        let h = self.h;
        let [k, v, q, scores] = [h.matrix(), h.matrix(), h.d * h.nr, h.column()].map(|len| cut(&mut self.scratch, len));
        // SAFETY: `dispatch` has checked the instruction set.
        unsafe {
            h.pack::<S>(self.qkv, 1, k);
            h.pack::<S>(self.qkv, 2, v);
        }
        for panel in self.panels {
            let queries = h.queries(panel);
            let kept = self.head * h.panels() + panel;
            // SAFETY: `dispatch` has checked the instruction set; tasks have different heads or panels.
            unsafe {
                h.pack_queries::<S>(self.qkv, panel, q);
                let s = match self.e {
                    Some(e) => e.slice(kept * h.column(), h.column()),
                    None => &mut *scores,
                };
                product::<S, MR, 2>(0..h.height, h.d, (k, h.column()), q, &mut Store(s));
                let mut stats = [0.0; 4 * LANES];
                let stats = &mut stats[..2 * h.nr];
                softmax::<S>(&mut s[..h.t * h.nr], stats);
                if let Some(all) = self.stats {
                    all.slice(kept * stats.len(), stats.len()).copy_from_slice(stats);
                }
                let (o, start) = (self.o.0, self.o.1 + queries.start * h.c + h.first);
                h.into_tokens::<S>((s, v), (o, start, h.c), &stats[h.nr..][..queries.len()]);
                if let Some(kept_o) = self.kept_o {
                    for row in (start..).step_by(h.c).take(queries.len()) {
                        kept_o.slice(row, h.d).copy_from_slice(o.slice(row, h.d));
                    }
                }
            }
        }
    }
}

/// s becomes e = 2^(s - max); `stats` is the maximum of each lane, then 1 / Σ e.
#[inline(always)]
unsafe fn softmax<S: Simd>(s: &mut [f32], stats: &mut [f32]) {
    // SAFETY: a row of `s` is two vectors, `stats` four; the instruction set as the caller promises.
    unsafe {
        let mut max = [S::splat(f32::NEG_INFINITY); 2];
        for s in s.chunks_exact(panel_width::<S>()) {
            let s = row::<S>(s);
            max = [S::max(max[0], s[0]), S::max(max[1], s[1])];
        }
        let mut sum = [S::zero(); 2];
        for s in s.chunks_exact_mut(panel_width::<S>()) {
            let e = exponentials::<S, 2>(row::<S>(s), max);
            S::store(s.as_mut_ptr(), e[0]);
            S::store(s.as_mut_ptr().add(S::W), e[1]);
            sum = [S::add(sum[0], e[0]), S::add(sum[1], e[1])];
        }
        for (i, v) in [max[0], max[1], S::recip(sum[0]), S::recip(sum[1])].into_iter().enumerate() {
            S::store(stats[i * S::W..][..S::W].as_mut_ptr(), v);
        }
    }
}

/// 2^(s - max), s ≤ max, to 3e-7 relative; 2^-126 is the least.
///
/// A minimax polynomial of degree 5 for 2^r, |r| ≤ ½, is off by 7.5e-8, one rounding: with exponents of 2 and no positive
/// argument it takes a third fewer operations than [`Simd::exp`].
#[inline(always)]
pub(super) unsafe fn exponentials<S: Simd, const NV: usize>(s: [S::V; NV], max: [S::V; 2]) -> [S::V; NV] {
    let mut e = s;
    for j in 0..NV {
        // SAFETY: as the caller promises; -126 ≤ n ≤ 0.
        unsafe {
            let x = S::max(S::splat(-126.0), S::sub(s[j], max[j]));
            let n = S::round(x);
            let r = S::sub(x, n);
            let mut p = S::splat(1.327_647_1e-3);
            for coefficient in [9.675_541e-3, 5.550_713e-2, 0.240_221_2, 0.693_146_94, 1.000_000_1] {
                p = S::fma(p, r, S::splat(coefficient));
            }
            e[j] = S::scale2(p, n);
        }
    }
    e
}

/// Stores a product.
struct Store<'a>(&'a mut [f32]);

impl<S: Simd> Tiles<S> for Store<'_> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]) {
        // SAFETY: as for the trait.
        unsafe { store_tile::<S, MR, NV>(self.0, row, acc) };
    }
}
