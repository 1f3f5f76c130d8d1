//! The coarse ops: res_block, attn_block and merge. Backends fuse them in their own way; the cases hold for all.

use super::norm::{modulation, modulation_input, noise_levels};
use super::{attention, extents, params};
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work, accumulator};
use crate::ops::Ops;
use crate::ops::attn_block::{AttnBlockGrads, AttnBlockWeights};
use crate::ops::conv2d::Conv2dSpec;
use crate::ops::res_block::{ResBlockGrads, ResBlockWeights};

/// A block is a chain of five ops, each with an error of at most 1e-5 of random sign.
const BLOCK_BOUND: f64 = 2.2e-5;

pub struct ResBlock {
    pub x: Shape,
    pub rows: usize,
}

impl Case for ResBlock {
    fn op(&self) -> &'static str {
        "res_block"
    }
    fn size(&self) -> String {
        format!("{} {}", extents(self.x), noise_levels(self.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        let c = self.x.c;
        vec![
            Input::normal("x", self.x).activation(),
            Input::weights("w1", 9 * c * c, 9 * c),
            Input::normal("b1", Shape::flat(c)),
            Input::weights("w2", 9 * c * c, 9 * c),
            Input::normal("b2", Shape::flat(c)),
            modulation_input(self.rows, c),
        ]
    }
    fn bound(&self) -> f64 {
        BLOCK_BOUND
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let [x, w1, b1, w2, b2, abc] = x else { unreachable!("six inputs") };
        let m = modulation(backend, abc);
        let spec = Conv2dSpec { c_in: self.x.c, c_out: self.x.c, stride: 1 };
        let conv = |w, b| backend.conv2d(spec, w, b, self.x, true);
        let k = ResBlockWeights { conv1: &conv(w1, b1), conv2: &conv(w2, b2) };
        let network = 2 * self.x.len() + 2 * w1.shape().len();
        let work = Work { flops: 2.0 * spec.flops(self.x), network, others: 0 };

        let (y, saved) = probe.call("forward", work, || backend.res_block_forward(&k, &m, x, keep));
        let mut gradients = Gradients::new();
        if let (Some(dy), Some(saved)) = (dy, saved) {
            if keep == Keep::All {
                let mut d = [w1, b1, w2, b2, abc].map(|w| accumulator(backend, w));
                let work = Work { flops: 2.0 * work.flops, ..work }.and_f32(4 * w1.shape().len());
                let dx = probe.call("vjp with params", work, || {
                    let [dw1, db1, dw2, db2, dabc] = &mut d;
                    let grads = ResBlockGrads { x, dw1, db1, dw2, db2, dabc };
                    backend.res_block_vjp(&k, &m, &saved, dy, Some(grads))
                });
                gradients.written(0, dx);
                d.into_iter().enumerate().for_each(|(i, d)| gradients.added(i + 1, d));
            } else {
                gradients.written(0, probe.call("vjp", work, || backend.res_block_vjp(&k, &m, &saved, dy, None)));
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub struct AttnBlock {
    pub x: Shape,
    pub heads: usize,
    pub rows: usize,
}

impl Case for AttnBlock {
    fn op(&self) -> &'static str {
        "attn_block"
    }
    fn size(&self) -> String {
        format!("{} heads {} {}", extents(self.x), self.heads, noise_levels(self.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        let c = self.x.c;
        vec![
            Input::normal("x", self.x).activation(),
            Input::weights("w_qkv", 3 * c * c, c),
            Input::normal("b_qkv", Shape::flat(3 * c)),
            Input::weights("w_out", c * c, c),
            modulation_input(self.rows, c),
        ]
    }
    fn bound(&self) -> f64 {
        BLOCK_BOUND
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let [x, w_qkv, b_qkv, w_out, abc] = x else { unreachable!("five inputs") };
        let m = modulation(backend, abc);
        let c = self.x.c;
        let k = AttnBlockWeights {
            qkv: &backend.linear(c, 3 * c, w_qkv, Some(b_qkv)),
            out: &backend.linear(c, c, w_out, None),
            heads: self.heads,
        };
        let (linears, products) = (8.0 * (self.x.len() * c) as f64, attention::products(self.x));
        let network = 2 * self.x.len() + 4 * c * c;
        let work = |flops| Work { flops, network, others: 0 };

        let forward = work(linears + products);
        let (y, saved) = probe.call("forward", forward, || backend.attn_block_forward(&k, &m, x, keep));
        let mut gradients = Gradients::new();
        if let (Some(dy), Some(saved)) = (dy, saved) {
            if keep == Keep::All {
                let mut d = [w_qkv, b_qkv, w_out, abc].map(|w| accumulator(backend, w));
                let work = work(2.0 * linears + 2.5 * products).and_f32(8 * c * c);
                let dx = probe.call("vjp with params", work, || {
                    let [dw_qkv, db_qkv, dw_out, dabc] = &mut d;
                    let grads = AttnBlockGrads { x, dw_qkv, db_qkv, dw_out, dabc };
                    backend.attn_block_vjp(&k, &m, &saved, dy, Some(grads))
                });
                gradients.written(0, dx);
                d.into_iter().enumerate().for_each(|(i, d)| gradients.added(i + 1, d));
            } else {
                let backward = work(linears + 2.5 * products);
                gradients.written(0, probe.call("vjp", backward, || backend.attn_block_vjp(&k, &m, &saved, dy, None)));
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub struct Merge {
    pub x: Shape,
    pub c_skip: usize,
    pub c_out: usize,
}

impl Case for Merge {
    fn op(&self) -> &'static str {
        "merge"
    }
    fn size(&self) -> String {
        format!("{} and {} to {}", extents(self.x), self.c_skip, self.c_out)
    }
    fn inputs(&self) -> Vec<Input> {
        let c_in = self.x.c + self.c_skip;
        vec![
            Input::normal("x", self.x).activation(),
            Input::normal("skip", self.skip()).activation(),
            Input::weights("w", 9 * c_in * self.c_out, 9 * c_in),
            Input::normal("b", Shape::flat(self.c_out)),
        ]
    }
    fn linear(&self) -> &'static [usize] {
        &[0, 1]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let [x, skip, w, b] = x else { unreachable!("four inputs") };
        let spec = Conv2dSpec { c_in: self.x.c + self.c_skip, c_out: self.c_out, stride: 1 };
        let input = self.skip().with_c(spec.c_in);
        let k = backend.merge(spec, self.x.c, w, b, input, true);
        let network = self.x.len() + self.skip().len() + spec.output(input).len() + w.shape().len();
        let work = Work { flops: spec.flops(input), network, others: 0 };

        let y = probe.call("forward", work, || backend.merge_forward(&k, x, skip));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let (dx, dskip) = probe.call("vjp", work, || backend.merge_vjp(&k, self.x.c, self.c_skip, dy));
            gradients.written(0, dx);
            gradients.written(1, dskip);
            if keep == Keep::All {
                let (mut dw, mut db) = (accumulator(backend, w), accumulator(backend, b));
                let work = params(work, w);
                probe.call("vjp params", work, || backend.merge_vjp_params(&k, x, skip, dy, &mut dw, &mut db));
                gradients.added(2, dw);
                gradients.added(3, db);
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

impl Merge {
    fn skip(&self) -> Shape {
        Shape::new(self.x.n, 2 * self.x.h, 2 * self.x.w, self.c_skip)
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    to.visit(ResBlock { x: s(3, 5, 7, 6), rows: 1 })?;
    to.visit(ResBlock { x: s(2, 7, 3, 19), rows: 2 })?;
    to.visit(ResBlock { x: s(2, 8, 8, 32), rows: 1 })?;
    to.visit(AttnBlock { x: s(3, 5, 3, 6), heads: 2, rows: 1 })?;
    to.visit(AttnBlock { x: s(2, 3, 7, 15), heads: 3, rows: 2 })?;
    to.visit(AttnBlock { x: s(2, 4, 4, 32), heads: 4, rows: 1 })?;
    to.visit(Merge { x: s(3, 3, 5, 5), c_skip: 3, c_out: 4 })?;
    to.visit(Merge { x: s(2, 3, 2, 19), c_skip: 17, c_out: 18 })?;
    to.visit(Merge { x: s(1, 4, 4, 32), c_skip: 16, c_out: 16 })?;
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let s = Shape::new;
    to.visit(ResBlock { x: s(n, 32, 32, 128), rows: 1 })?;
    to.visit(ResBlock { x: s(n, 16, 16, 256), rows: 1 })?;
    to.visit(ResBlock { x: s(n, 8, 8, 384), rows: 1 })?;
    to.visit(AttnBlock { x: s(n, 16, 16, 256), heads: 4, rows: 1 })?;
    to.visit(Merge { x: s(n, 16, 16, 256), c_skip: 128, c_out: 128 })?;
    to.visit(Merge { x: s(n, 8, 8, 384), c_skip: 256, c_out: 256 })?;
    Ok(())
}
