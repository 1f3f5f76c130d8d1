//! dq of some query panels of one head, or dk and dv of some keys, or all of them.

use super::forward::exponentials;
use super::head::{Head, cut, row};
use super::panels::{Add, Tiles, pack, pack_transposed, panel_width, product, store_tile};
use crate::backend::cpu::SharedMut;
use crate::backend::cpu::lanes::get;
use crate::backend::cpu::micro::LINE;
use crate::backend::cpu::simd::{Body, LANES, Simd, Sum};
use std::ops::Range;

/// Query panels that are gathered before they are added to dk and dv: their ds stays in the second-level cache.
const BLOCK: usize = 4;

/// Which gradients a task computes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// dq, dk, dv.
    All,
    /// dq of the task's panels; it covers all keys.
    Queries,
    /// dk and dv of the task's keys; it covers all panels.
    Keys,
}

/// Arguments of the task.
pub(super) struct Vjp<'a> {
    pub h: Head,
    pub part: Part,
    /// Query panels.
    pub panels: Range<usize>,
    /// Whole register blocks of keys.
    pub keys: Range<usize>,
    /// (T, 3 C) of the sample.
    pub qkv: &'a [f32],
    /// (T, C) of the sample.
    pub o: &'a [f32],
    /// (T, C) of the sample.
    pub d_o: &'a [f32],
    /// (panels, 2 NR) of the head.
    pub stats: &'a [f32],
    /// (panels, height, NR) of the head, if saved.
    pub e: Option<&'a [f32]>,
    /// Of the batch, and where the sample begins.
    pub dqkv: (SharedMut<'a>, usize),
    /// At least [`Vjp::scratch`].
    pub scratch: &'a mut [f32],
}

impl Vjp<'_> {
    /// Floats of scratch.
    pub fn scratch(h: Head) -> usize {
        4 * h.matrix() + 2 * h.d * h.nr + 2 * BLOCK * (h.column() + h.widths() * h.nr * h.nr)
    }
}

impl Body for Vjp<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        let h = self.h;
        let rows = BLOCK * h.widths() * h.nr * h.nr;
        let [k, v, dk, dv] = [(); 4].map(|()| cut(&mut self.scratch, h.matrix()));
        let [e, ds] = [(); 2].map(|()| cut(&mut self.scratch, BLOCK * h.column()));
        let [panel, rows] = [h.d * h.nr, rows].map(|len| cut(&mut self.scratch, len));
        // SAFETY: `dispatch` has checked the instruction set.
        unsafe {
            h.pack::<S>(self.qkv, 1, k);
            h.pack::<S>(self.qkv, 2, v);
        }
        dk.fill(0.0);
        dv.fill(0.0);
        for block in self.panels.clone().step_by(BLOCK) {
            let panels = block..self.panels.end.min(block + BLOCK);
            // SAFETY: `dispatch` has checked the instruction set.
            unsafe {
                let e = match self.e {
                    Some(e) => &e[panels.start * h.column()..panels.end * h.column()],
                    None => {
                        self.recompute::<S, MR>(panels.clone(), k, panel, e);
                        &*e
                    }
                };
                for ((i, ds), e) in panels.clone().zip(ds.chunks_exact_mut(h.column())).zip(e.chunks_exact(h.column()))
                {
                    self.score_gradients::<S, MR>(i, (v, e), panel, ds);
                    if self.part != Part::Keys {
                        let queries = h.queries(i);
                        let out = (self.dqkv.0, self.dqkv.1 + h.at(queries.start, 0), 3 * h.c);
                        h.into_tokens::<S>((ds, k), out, &[h.scale(); 2 * LANES][..queries.len()]);
                    }
                }
                if self.part != Part::Queries {
                    let queries = h.queries(panels.start).start..h.queries(panels.end - 1).end;
                    let rsum = |i: usize| self.stats[(block + i / h.nr) * 2 * h.nr + h.nr + i % h.nr];
                    let x = (&self.d_o[queries.start * h.c + h.first..], h.c);
                    pack::<S>(x, queries.len(), h.d, BLOCK * h.nr, rsum, rows);
                    self.add::<S, MR>(queries.len(), (e, rows), dv);
                    let x = (&self.qkv[h.at(queries.start, 0)..], 3 * h.c);
                    pack::<S>(x, queries.len(), h.d, BLOCK * h.nr, |_| h.scale(), rows);
                    self.add::<S, MR>(queries.len(), (ds, rows), dk);
                }
            }
        }
        if self.part != Part::Queries {
            self.store(1, dk);
            self.store(2, dv);
        }
    }
}

impl Vjp<'_> {
    /// e of some panels, as the forward computed it.
    #[inline(always)]
    unsafe fn recompute<S: Simd, const MR: usize>(
        &self,
        panels: Range<usize>,
        k: &[f32],
        q: &mut [f32],
        e: &mut [f32],
    ) {
        let h = self.h;
        for (panel, e) in panels.zip(e.chunks_exact_mut(h.column())) {
            // SAFETY: as the caller promises.
            unsafe {
                h.pack_queries::<S>(self.qkv, panel, q);
                let mut tiles = Exponentials::<S> { e, max: row::<S>(&self.stats[panel * 2 * h.nr..]) };
                product::<S, MR, 2>(self.keys.clone(), h.d, (k, h.column()), q, &mut tiles);
            }
        }
    }

    /// ds of one panel: do is divided by Σ e before it meets v, and Σ_keys p dp is do o.
    #[inline(always)]
    unsafe fn score_gradients<S: Simd, const MR: usize>(
        &self,
        panel: usize,
        (v, e): (&[f32], &[f32]),
        packed: &mut [f32],
        ds: &mut [f32],
    ) {
        let h = self.h;
        let queries = h.queries(panel);
        let rsum = &self.stats[(2 * panel + 1) * h.nr..][..h.nr];
        let (o, d_o) = (&self.o[queries.start * h.c + h.first..], &self.d_o[queries.start * h.c + h.first..]);
        let mut p_dp = [0.0; 2 * LANES];
        // SAFETY: as the caller promises.
        unsafe {
            for i in 0..queries.len() {
                p_dp[i] = rsum[i] * dot::<S>(&o[i * h.c..][..h.d], &d_o[i * h.c..][..h.d]);
            }
            pack_transposed::<S>((d_o, h.c), queries.len(), h.d, |i| rsum[i], packed);
            let mut tiles = ScoreGradients::<S> { e, p_dp: row::<S>(&p_dp), ds };
            product::<S, MR, 2>(self.keys.clone(), h.d, (v, h.column()), packed, &mut tiles);
        }
    }

    /// sums += A B of a block: A has one row per key and one column per query, B one row per query.
    #[inline(always)]
    unsafe fn add<S: Simd, const MR: usize>(&self, queries: usize, (a, b): (&[f32], &[f32]), sums: &mut [f32]) {
        let (h, keys) = (self.h, self.keys.clone());
        let panels = b.chunks_exact(BLOCK * h.nr * h.nr).zip(sums.chunks_exact_mut(h.column()));
        for (first, (b, sums)) in (0..h.d).step_by(h.nr).zip(panels) {
            // SAFETY: as the caller promises.
            unsafe {
                if h.d - first > S::W {
                    product::<S, MR, 2>(keys.clone(), queries, (a, h.column()), b, &mut Add(sums));
                } else {
                    product::<S, MR, 1>(keys.clone(), queries, (a, h.column()), b, &mut Add(sums));
                }
            }
        }
    }

    /// The gradients of keys (1) or values (2) go where they belong.
    fn store(&self, which: usize, sums: &[f32]) {
        let h = self.h;
        for key in self.keys.start..self.keys.end.min(h.t) {
            // SAFETY: tasks write different heads, keys, or queries.
            let out = unsafe { self.dqkv.0.slice(self.dqkv.1 + h.at(key, which), h.d) };
            for (out, panel) in out.chunks_mut(h.nr).zip(sums.chunks_exact(h.column())) {
                out.copy_from_slice(&panel[key * h.nr..][..out.len()]);
            }
        }
    }
}

/// Σ a b.
#[inline(always)]
unsafe fn dot<S: Simd>(a: &[f32], b: &[f32]) -> f32 {
    // SAFETY: as the caller promises.
    unsafe {
        let mut sum = Sum::<S>::zero();
        for block in (0..a.len()).step_by(LANES) {
            for slot in 0..Sum::<S>::SLOTS {
                let i = block + slot * S::W;
                sum.fma(slot, get::<S>(a, i, 0.0), get::<S>(b, i, 0.0));
            }
        }
        sum.total()
    }
}

/// Stores e of the scores.
struct Exponentials<'a, S: Simd> {
    e: &'a mut [f32],
    max: [S::V; 2],
}

impl<S: Simd> Tiles<S> for Exponentials<'_, S> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, mut acc: [[S::V; NV]; MR]) {
        // SAFETY: as for the trait. A loop, because closures of `map` would not be inlined.
        unsafe {
            for s in &mut acc {
                *s = exponentials::<S, NV>(*s, self.max);
            }
            store_tile::<S, MR, NV>(self.e, row, acc);
        }
    }
}

/// Stores ds = e (dp - Σ_keys p dp), dp divided by Σ e.
struct ScoreGradients<'a, S: Simd> {
    e: &'a [f32],
    p_dp: [S::V; 2],
    ds: &'a mut [f32],
}

impl<S: Simd> Tiles<S> for ScoreGradients<'_, S> {
    /// Asks for the tile's e, which comes from memory, while dp is computed.
    #[inline(always)]
    unsafe fn start<const MR: usize, const NV: usize>(&self, row: usize) -> [[S::V; NV]; MR] {
        let nr = panel_width::<S>();
        // SAFETY: as for the trait.
        unsafe {
            for line in self.e[row * nr..][..MR * nr].chunks(LINE) {
                S::prefetch(line.as_ptr());
            }
            [[S::zero(); NV]; MR]
        }
    }
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, mut acc: [[S::V; NV]; MR]) {
        let nr = panel_width::<S>();
        // SAFETY: the slice ends where the tile does; else as for the trait.
        unsafe {
            let e = self.e[row * nr..][..MR * nr].as_ptr();
            for i in 0..MR {
                for j in 0..NV {
                    acc[i][j] = S::mul(S::load(e.add(i * nr + j * S::W)), S::sub(acc[i][j], self.p_dp[j]));
                }
            }
            store_tile::<S, MR, NV>(self.ds, row, acc);
        }
    }
}
