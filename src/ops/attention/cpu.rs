//! attention: the fast CPU form.
//!
//! Queries are taken one panel (two vectors) at a time, one query per lane: the scores of a panel are
//! \[keys\]\[queries\], so the softmax runs down the keys without horizontal sums, and no key that does not exist is
//! counted. e = exp(s - max) is never normalised: 1 / Σ e is applied to the rows of o, and in the VJP to those of do.

use super::Attention;
use super::panels::{Add, Tiles, pack, pack_transposed, panel_width, product, product_transposed, put_row};
use crate::backend::cpu::lanes::get;
use crate::backend::cpu::simd::{Body, Isa, LANES, Simd, Sum, dispatch};
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::{Array, Backend, Keep, Shape};
use std::ops::Range;

/// The e of one layer are saved up to this many bytes; above, the VJP computes them again.
const SAVED_BYTES: usize = 64 << 20;

/// Query panels that the VJP gathers before it adds to dk and dv: their ds stays in the second-level cache.
const BLOCK: usize = 4;

/// What the VJP needs.
pub struct CpuAttention {
    qkv: <Cpu as Backend>::Tensor,       // (N, H, W, 3 C)
    o: <Cpu as Backend>::Tensor,         // (N, H, W, C)
    stats: <Cpu as Backend>::Tensor,     // (N, heads, panels, 2 NR): max, then 1 / Σ e, of each query
    e: Option<<Cpu as Backend>::Tensor>, // (N, heads, panels, height NR)
}

/// Extents of one head.
#[derive(Clone, Copy)]
struct Head {
    t: usize,      // tokens
    c: usize,      // channels of all heads
    d: usize,      // channels of this one
    first: usize,  // its first channel
    nr: usize,     // queries of a panel
    height: usize, // tokens, rounded up to whole register blocks
}

impl Head {
    fn new(isa: Isa, s: Shape, heads: usize, head: usize) -> Self {
        let (t, c) = (s.pixels(), s.c / 3);
        assert!(
            heads > 0 && 3 * c == s.c && c.is_multiple_of(heads),
            "queries, keys, values of {heads} heads in {s:?}"
        );
        let d = c / heads;
        Self { t, c, d, first: head * d, nr: 2 * isa.lanes(), height: t.next_multiple_of(isa.block_rows()) }
    }
    /// Panels of queries.
    fn panels(self) -> usize {
        self.t.div_ceil(self.nr)
    }
    /// The queries of a panel.
    fn queries(self, panel: usize) -> Range<usize> {
        panel * self.nr..self.t.min((panel + 1) * self.nr)
    }
    /// Floats of a panel with one row per token.
    fn column(self) -> usize {
        self.height * self.nr
    }
    /// Floats of this head's queries, keys, values or their gradients as panels.
    fn matrix(self) -> usize {
        self.d.div_ceil(self.nr) * self.column()
    }
    fn scale(self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }
    /// Where `which` (0 queries, 1 keys, 2 values) of `token` begins in a sample of qkv.
    fn at(self, token: usize, which: usize) -> usize {
        (3 * token + which) * self.c + self.first
    }
    /// All keys or values, packed.
    fn pack(self, qkv: &[f32], which: usize, out: &mut [f32]) {
        pack(self.nr, (&qkv[self.at(0, which)..], 3 * self.c), self.t, self.d, self.height, |_| 1.0, out);
    }
    /// The queries of a panel, scaled, transposed.
    fn pack_queries(self, qkv: &[f32], panel: usize, out: &mut [f32]) {
        let queries = self.queries(panel);
        let x = (&qkv[self.at(queries.start, 0)..], 3 * self.c);
        pack_transposed(self.nr, x, queries.len(), self.d, |_| self.scale(), out);
    }
}

/// Stores scores, and takes their maximum over the keys that exist.
struct Scores<'a, S: Simd> {
    s: &'a mut [f32],
    t: usize,
    max: [S::V; 2],
}

impl<S: Simd> Tiles<S> for Scores<'_, S> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]) {
        // SAFETY: as for the trait.
        unsafe {
            for acc in acc.iter().take(self.t - row) {
                for (max, acc) in self.max.iter_mut().zip(acc) {
                    *max = S::max(*max, *acc);
                }
            }
            Tiles::<S>::finish(&mut Add(self.s), row, acc);
        }
    }
}

/// Stores e = exp(s - max).
struct Exponentials<'a, S: Simd> {
    e: &'a mut [f32],
    max: [S::V; 2],
}

impl<S: Simd> Tiles<S> for Exponentials<'_, S> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, mut acc: [[S::V; NV]; MR]) {
        // SAFETY: as for the trait.
        unsafe {
            for acc in &mut acc {
                for (acc, max) in acc.iter_mut().zip(self.max) {
                    *acc = S::exp(S::sub(*acc, max));
                }
            }
            Tiles::<S>::finish(&mut Add(self.e), row, acc);
        }
    }
}

/// Stores ds = e (dp - Σ_keys p dp), dp already divided by Σ e.
struct ScoreGradients<'a, S: Simd> {
    e: &'a [f32],
    p_dp: [S::V; 2],
    ds: &'a mut [f32],
}

impl<S: Simd> Tiles<S> for ScoreGradients<'_, S> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, mut acc: [[S::V; NV]; MR]) {
        let nr = panel_width::<S>();
        // SAFETY: the slice ends where the tile does; else as for the trait.
        unsafe {
            let e = self.e[row * nr..][..MR * nr].as_ptr();
            for (i, acc) in acc.iter_mut().enumerate() {
                for (j, acc) in acc.iter_mut().enumerate() {
                    *acc = S::mul(S::load(e.add(i * nr + j * S::W)), S::sub(*acc, self.p_dp[j]));
                }
            }
            Tiles::<S>::finish(&mut Add(self.ds), row, acc);
        }
    }
}

/// Writes rows of this head, times a factor each, into an array with `ld` floats per token.
struct Output<'a> {
    out: SharedMut<'a>,
    start: usize, // of the first row
    ld: usize,
    width: usize,
    factors: &'a [f32], // one for each row that exists
}

impl<S: Simd> Tiles<S> for Output<'_> {
    #[inline(always)]
    unsafe fn finish<const MR: usize, const NV: usize>(&mut self, row: usize, acc: [[S::V; NV]; MR]) {
        for (i, acc) in acc.into_iter().enumerate().take(self.factors.len() - row) {
            // SAFETY: tasks write different tokens or heads; else as for the trait.
            unsafe {
                let out = self.out.slice(self.start + (row + i) * self.ld, self.width);
                put_row::<S, NV>(out, acc, self.factors[row + i]);
            }
        }
    }
}

/// Aᵀ B of a panel A of queries and all panels of B, with one row per key, into one row per query.
#[inline(always)]
unsafe fn into_tokens<S: Simd>(
    h: Head,
    a: &[f32],
    b: &[f32],
    out: SharedMut,
    start: usize,
    ld: usize,
    factors: &[f32],
) {
    for (first, b) in (0..h.d).step_by(h.nr).zip(b.chunks_exact(h.column())) {
        let width = h.nr.min(h.d - first);
        let mut out = Output { out, start: start + first, ld, width, factors };
        // SAFETY: as the caller promises.
        unsafe {
            if width > S::W {
                product_transposed::<S, 2>(factors.len(), h.t, a, b, &mut out);
            } else {
                product_transposed::<S, 1>(factors.len(), h.t, a, b, &mut out);
            }
        }
    }
}

/// Cuts `len` floats off the scratch.
fn cut<'a>(scratch: &mut &'a mut [f32], len: usize) -> &'a mut [f32] {
    scratch.split_off_mut(..len).expect("the scratch is sized for all of its parts")
}

/// Some query panels of one head.
struct Forward<'a> {
    h: Head,
    panels: Range<usize>,
    qkv: &'a [f32],   // of the sample
    o: SharedMut<'a>, // of the batch
    o_start: usize,   // of the sample
    stats: Option<SharedMut<'a>>,
    e: Option<SharedMut<'a>>,
    head: usize, // sample and head, of the arrays that are kept
    scratch: &'a mut [f32],
}

impl Forward<'_> {
    fn scratch(h: Head) -> usize {
        2 * h.matrix() + h.d * h.nr + h.column()
    }
}

impl Body for Forward<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        let h = self.h;
        let [k, v] = [1, 2].map(|which| {
            let packed = cut(&mut self.scratch, h.matrix());
            h.pack(self.qkv, which, packed);
            packed
        });
        let q = cut(&mut self.scratch, h.d * h.nr);
        let scores = cut(&mut self.scratch, h.column());
        for panel in self.panels {
            let queries = h.queries(panel);
            let kept = self.head * h.panels() + panel;
            h.pack_queries(self.qkv, panel, q);
            // SAFETY: `dispatch` has checked the instruction set; tasks have different panels.
            unsafe {
                let s = match self.e {
                    Some(e) => e.slice(kept * h.column(), h.column()),
                    None => &mut *scores,
                };
                let mut tiles = Scores { s, t: h.t, max: [S::splat(f32::NEG_INFINITY); 2] };
                product::<S, MR, 2>(0..h.height, h.d, (k, h.column()), q, &mut tiles);
                let Scores { s, max, .. } = tiles;
                let mut stats = [0.0; 4 * LANES];
                let stats = &mut stats[..2 * h.nr];
                let sum = exponentials::<S>(&mut s[..h.t * h.nr], max);
                for j in 0..2 {
                    S::store(stats[j * S::W..].as_mut_ptr(), max[j]);
                    S::store(stats[h.nr + j * S::W..].as_mut_ptr(), S::recip(sum[j]));
                }
                if let Some(kept_stats) = self.stats {
                    kept_stats.slice(kept * 2 * h.nr, 2 * h.nr).copy_from_slice(stats);
                }
                let start = self.o_start + queries.start * h.c + h.first;
                into_tokens::<S>(h, s, v, self.o, start, h.c, &stats[h.nr..][..queries.len()]);
            }
        }
    }
}

/// s becomes e = exp(s - max); Σ e.
#[inline(always)]
unsafe fn exponentials<S: Simd>(s: &mut [f32], max: [S::V; 2]) -> [S::V; 2] {
    // SAFETY: a row of `s` is two vectors; the instruction set as the caller promises.
    unsafe {
        let mut sum = [S::zero(); 2];
        for row in s.chunks_exact_mut(panel_width::<S>()) {
            for j in 0..2 {
                let p = row.as_mut_ptr().add(j * S::W);
                let e = S::exp(S::sub(S::load(p), max[j]));
                S::store(p, e);
                sum[j] = S::add(sum[j], e);
            }
        }
        sum
    }
}

/// One head: dq of some query panels, or dk and dv of some keys, or all.
struct Vjp<'a> {
    h: Head,
    panels: Range<usize>,
    keys: Range<usize>, // whole register blocks
    wants_dq: bool,
    wants_dkv: bool,
    qkv: &'a [f32],       // of the sample
    o: &'a [f32],         // of the sample
    d_o: &'a [f32],       // of the sample
    stats: &'a [f32],     // of the head
    e: Option<&'a [f32]>, // of the head
    dqkv: SharedMut<'a>,
    dqkv_start: usize, // of the sample
    scratch: &'a mut [f32],
}

impl Vjp<'_> {
    fn scratch(h: Head) -> usize {
        let block = h.d.div_ceil(h.nr) * BLOCK * h.nr * h.nr;
        4 * h.matrix() + 2 * block + 2 * h.d * h.nr + 2 * BLOCK * h.column()
    }
}

impl Body for Vjp<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const MR: usize>(mut self) {
        let h = self.h;
        let [k, v] = [1, 2].map(|which| {
            let packed = cut(&mut self.scratch, h.matrix());
            h.pack(self.qkv, which, packed);
            packed
        });
        let [dk, dv] = [(); 2].map(|_| {
            let sums = cut(&mut self.scratch, h.matrix());
            sums.fill(0.0);
            sums
        });
        let tall = BLOCK * h.nr; // queries of a block
        let [q, d_o] = [(); 2].map(|_| cut(&mut self.scratch, h.d.div_ceil(h.nr) * tall * h.nr));
        let [panel_q, panel_do] = [(); 2].map(|_| cut(&mut self.scratch, h.d * h.nr));
        let [block_ds, block_e] = [(); 2].map(|_| cut(&mut self.scratch, BLOCK * h.column()));
        let scales = [h.scale(); 2 * LANES];

        for block in self.panels.clone().step_by(BLOCK) {
            let panels = block..self.panels.end.min(block + BLOCK);
            for (panel, ds) in panels.clone().zip(block_ds.chunks_exact_mut(h.column())) {
                let queries = h.queries(panel);
                let (max, rsum) = self.stats[panel * 2 * h.nr..][..2 * h.nr].split_at(h.nr);
                let rows = |x| -> &[f32] { &(x as &[f32])[queries.start * h.c + h.first..] };
                pack_transposed(h.nr, (rows(self.d_o), h.c), queries.len(), h.d, |i| rsum[i], panel_do);
                // SAFETY: `dispatch` has checked the instruction set.
                unsafe {
                    let mut p_dp = [0.0; 2 * LANES];
                    for i in 0..queries.len() {
                        p_dp[i] =
                            rsum[i] * dot::<S>(&rows(self.o)[i * h.c..][..h.d], &rows(self.d_o)[i * h.c..][..h.d]);
                    }
                    let e = match self.e {
                        Some(e) => &e[panel * h.column()..][..h.column()],
                        None => {
                            let e = &mut block_e[(panel - block) * h.column()..][..h.column()];
                            h.pack_queries(self.qkv, panel, panel_q);
                            let max = [0, 1].map(|j| S::load(max[j * S::W..].as_ptr()));
                            let mut tiles = Exponentials { e, max };
                            product::<S, MR, 2>(self.keys.clone(), h.d, (k, h.column()), panel_q, &mut tiles);
                            &*tiles.e
                        }
                    };
                    let p_dp = [0, 1].map(|j| S::load(p_dp[j * S::W..].as_ptr()));
                    let mut tiles = ScoreGradients { e, p_dp, ds };
                    product::<S, MR, 2>(self.keys.clone(), h.d, (v, h.column()), panel_do, &mut tiles);
                    if self.wants_dq {
                        let start = self.dqkv_start + h.at(queries.start, 0);
                        into_tokens::<S>(h, ds, k, self.dqkv, start, 3 * h.c, &scales[..queries.len()]);
                    }
                }
            }
            if self.wants_dkv {
                let queries = h.queries(block).start..h.queries(panels.end - 1).end;
                let rsum = |i: usize| self.stats[(block + i / h.nr) * 2 * h.nr + h.nr + i % h.nr];
                let (x, ld) = (&self.qkv[h.at(queries.start, 0)..], 3 * h.c);
                pack(h.nr, (x, ld), queries.len(), h.d, tall, |_| h.scale(), q);
                let (x, ld) = (&self.d_o[queries.start * h.c + h.first..], h.c);
                pack(h.nr, (x, ld), queries.len(), h.d, tall, rsum, d_o);
                let e = match self.e {
                    Some(e) => &e[block * h.column()..],
                    None => &*block_e,
                };
                // SAFETY: `dispatch` has checked the instruction set.
                unsafe {
                    into_keys::<S, MR>(h, self.keys.clone(), queries.len(), e, d_o, dv);
                    into_keys::<S, MR>(h, self.keys.clone(), queries.len(), block_ds, q, dk);
                }
            }
        }
        if self.wants_dkv {
            for (which, sums) in [(1, dk), (2, dv)] {
                for key in self.keys.start..self.keys.end.min(h.t) {
                    // SAFETY: tasks write different heads, keys, or queries.
                    let out = unsafe { self.dqkv.slice(self.dqkv_start + h.at(key, which), h.d) };
                    for (out, panel) in out.chunks_mut(h.nr).zip(sums.chunks_exact(h.column())) {
                        out.copy_from_slice(&panel[key * h.nr..][..out.len()]);
                    }
                }
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

/// sums += A B of a block: A with one row per key and one column per query, B the block's panels, one row per query.
#[inline(always)]
unsafe fn into_keys<S: Simd, const MR: usize>(
    h: Head,
    keys: Range<usize>,
    queries: usize,
    a: &[f32],
    b: &[f32],
    sums: &mut [f32],
) {
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

/// The `part`th of `parts` ranges of whole `unit`s that cover 0 .. `len`.
fn share(len: usize, unit: usize, part: usize, parts: usize) -> Range<usize> {
    let units = len.div_ceil(unit);
    len.min(units * part / parts * unit)..len.min(units * (part + 1) / parts * unit)
}

impl Attention for Cpu {
    type AttentionSaved = CpuAttention;

    fn attention_forward(&self, qkv: Self::Tensor, heads: usize, keep: Keep) -> (Self::Tensor, Option<CpuAttention>) {
        let s = qkv.shape();
        let h = Head::new(self.isa(), s, heads, 0);
        let mut o = self.alloc(s.with_c(h.c));
        let keeps = keep != Keep::Nothing;
        let mut stats = keeps.then(|| self.alloc(Shape::new(s.n, heads, h.panels(), 2 * h.nr)));
        let e_shape = Shape::new(s.n, heads, h.panels(), h.column());
        let saves = keeps && !self.options().low_memory && e_shape.len() * size_of::<f32>() <= SAVED_BYTES;
        let mut e = saves.then(|| self.alloc(e_shape));

        let parts = (4 * self.threads()).div_ceil(s.n * heads).min(h.panels());
        let tasks = Tasks::new(s.n * heads * parts);
        let (shared_o, shared_stats) = (SharedMut::new(&mut o), stats.as_deref_mut().map(SharedMut::new));
        let shared_e = e.as_deref_mut().map(SharedMut::new);
        self.each_worker(Forward::scratch(h), |scratch| {
            while let Some(task) = tasks.take() {
                let (head, part) = (task / parts, task % parts);
                let n = head / heads;
                let body = Forward {
                    h: Head::new(self.isa(), s, heads, head % heads),
                    panels: share(h.panels(), 1, part, parts),
                    qkv: qkv.row(n),
                    o: shared_o,
                    o_start: n * h.t * h.c,
                    stats: shared_stats,
                    e: shared_e,
                    head,
                    scratch,
                };
                // SAFETY: no two tasks share a head and a panel, so they write different rows.
                unsafe { dispatch(self.isa(), body) };
            }
        });
        let saved = stats.map(|stats| CpuAttention { qkv, o: self.copy(&o), stats, e });
        (o, saved)
    }

    fn attention_vjp(&self, saved: &CpuAttention, d_o: &Self::Tensor) -> Self::Tensor {
        let (s, heads) = (saved.qkv.shape(), saved.stats.shape().h);
        let h = Head::new(self.isa(), s, heads, 0);
        assert_eq!(d_o.shape(), s.with_c(h.c));
        let mut dqkv = self.alloc(s);
        // With heads enough for all workers dp is computed once; else dq and (dk, dv) are tasks of their own.
        let enough = s.n * heads >= 2 * self.threads();
        let parts = if enough { 1 } else { (2 * self.threads()).div_ceil(s.n * heads) };
        let per_head = if enough { 1 } else { 2 * parts };
        let tasks = Tasks::new(s.n * heads * per_head);
        let shared = SharedMut::new(&mut dqkv);
        self.each_worker(Vjp::scratch(h), |scratch| {
            while let Some(task) = tasks.take() {
                let (head, part) = (task / per_head, task % per_head);
                let n = head / heads;
                let (wants_dq, wants_dkv) = (enough || part < parts, enough || part >= parts);
                let part = part % parts;
                let (all, all_keys) = (0..h.panels(), 0..h.height);
                let stats = h.panels() * 2 * h.nr;
                let body = Vjp {
                    h: Head::new(self.isa(), s, heads, head % heads),
                    panels: if wants_dkv { all } else { share(h.panels(), 1, part, parts) },
                    keys: if wants_dq { all_keys } else { share(h.height, self.isa().block_rows(), part, parts) },
                    wants_dq,
                    wants_dkv,
                    qkv: saved.qkv.row(n),
                    o: saved.o.row(n),
                    d_o: d_o.row(n),
                    stats: &saved.stats[head * stats..][..stats],
                    e: saved.e.as_ref().map(|e| &e[head * h.panels() * h.column()..][..h.panels() * h.column()]),
                    dqkv: shared,
                    dqkv_start: n * s.row(),
                    scratch,
                };
                // SAFETY: tasks of one head write dq of different queries, or dk and dv of different keys.
                unsafe { dispatch(self.isa(), body) };
            }
        });
        dqkv
    }
}
