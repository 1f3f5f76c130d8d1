//! attention: the fast CPU form.
//!
//! Queries are taken one panel (two vectors) at a time, one query per lane: the scores of a panel are
//! \[keys\]\[queries\], so the softmax runs down the keys without horizontal sums, and no key that does not exist is
//! counted. e = exp(s - max) is never normalised: 1 / Σ e is applied to the rows of o, and in the VJP to those of do.

mod forward;
mod head;
mod panels;
mod vjp;

use super::Attention;
use crate::backend::cpu::simd::dispatch;
use crate::backend::cpu::{Cpu, SharedMut, Tasks};
use crate::backend::{Array, Backend, Keep, Shape};
use forward::Forward;
use head::Head;
use std::ops::Range;
use vjp::{Part, Vjp};

/// The e of one layer are saved up to this many bytes; above, the VJP computes them again.
const SAVED_BYTES: usize = 64 << 20;

/// What the VJP needs.
pub struct CpuAttention {
    qkv: <Cpu as Backend>::Tensor,       // (N, H, W, 3 C)
    o: <Cpu as Backend>::Tensor,         // (N, H, W, C)
    stats: <Cpu as Backend>::Tensor,     // (N, heads, panels, 2 NR): the largest score of each query, then 1 / Σ e
    e: Option<<Cpu as Backend>::Tensor>, // (N, heads, panels, height NR)
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
        let mut kept_o = keeps.then(|| self.alloc(o.shape()));
        let mut stats = keeps.then(|| self.alloc(Shape::new(s.n, heads, h.panels(), 2 * h.nr)));
        let e_shape = Shape::new(s.n, heads, h.panels(), h.column());
        let saves = keeps && !self.options().low_memory && e_shape.len() * size_of::<f32>() <= SAVED_BYTES;
        let mut e = saves.then(|| self.alloc(e_shape));

        let parts = (4 * self.threads()).div_ceil(s.n * heads).min(h.panels());
        let tasks = Tasks::new(s.n * heads * parts);
        let shared_o = SharedMut::new(&mut o);
        let shared_kept_o = kept_o.as_deref_mut().map(SharedMut::new);
        let shared_stats = stats.as_deref_mut().map(SharedMut::new);
        let shared_e = e.as_deref_mut().map(SharedMut::new);
        self.each_worker(Forward::scratch(h), |scratch| {
            while let Some(task) = tasks.take() {
                let (head, part) = (task / parts, task % parts);
                let n = head / heads;
                let body = Forward {
                    h: Head::new(self.isa(), s, heads, head % heads),
                    panels: share(h.panels(), 1, part, parts),
                    qkv: qkv.row(n),
                    o: (shared_o, n * h.t * h.c),
                    kept_o: shared_kept_o,
                    stats: shared_stats,
                    e: shared_e,
                    head,
                    scratch,
                };
                // SAFETY: no two tasks share both head and panel, so they write different ranges.
                unsafe { dispatch(self.isa(), body) };
            }
        });
        let saved = kept_o.zip(stats).map(|(o, stats)| CpuAttention { qkv, o, stats, e });
        (o, saved)
    }

    fn attention_vjp(&self, saved: &CpuAttention, d_o: &Self::Tensor) -> Self::Tensor {
        let (s, heads) = (saved.qkv.shape(), saved.stats.shape().h);
        let h = Head::new(self.isa(), s, heads, 0);
        assert_eq!(d_o.shape(), s.with_c(h.c));
        let mut dqkv = self.alloc(s);
        // With few heads dq and (dk, dv) become tasks of their own, which compute dp twice but keep all workers busy.
        let parts = if s.n * heads >= 2 * self.threads() { 0 } else { (2 * self.threads()).div_ceil(s.n * heads) };
        let per_head = (2 * parts).max(1);
        let tasks = Tasks::new(s.n * heads * per_head);
        let shared = SharedMut::new(&mut dqkv);
        let (stats, e) = (h.panels() * 2 * h.nr, h.panels() * h.column());
        self.each_worker(Vjp::scratch(h), |scratch| {
            while let Some(task) = tasks.take() {
                let (head, i) = (task / per_head, task % per_head);
                let n = head / heads;
                let (part, panels, keys) = if parts == 0 {
                    (Part::All, 0..h.panels(), 0..h.height)
                } else if i < parts {
                    (Part::Queries, share(h.panels(), 1, i, parts), 0..h.height)
                } else {
                    (Part::Keys, 0..h.panels(), share(h.height, self.isa().block_rows(), i - parts, parts))
                };
                let body = Vjp {
                    h: Head::new(self.isa(), s, heads, head % heads),
                    part,
                    panels,
                    keys,
                    qkv: saved.qkv.row(n),
                    o: saved.o.row(n),
                    d_o: d_o.row(n),
                    stats: &saved.stats[head * stats..][..stats],
                    e: saved.e.as_ref().map(|all| &all[head * e..][..e]),
                    dqkv: (shared, n * s.row()),
                    scratch,
                };
                // SAFETY: tasks of one head write dq of different queries, or dk and dv of different keys.
                unsafe { dispatch(self.isa(), body) };
            }
        });
        dqkv
    }
}
