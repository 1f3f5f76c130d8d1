//! attention.

use super::extents;
use crate::Result;
use crate::backend::Shape;
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work};
use crate::ops::Ops;

struct Attention {
    o: Shape,
    heads: usize,
}

/// Floating point operations of the two products of attention, queries by keys and weights by values; the softmax between
/// them is not counted, as is usual. The VJP has four such products and computes the first again.
pub fn products(o: Shape) -> f64 {
    4.0 * (o.len() * o.pixels()) as f64
}

impl Case for Attention {
    fn op(&self) -> &'static str {
        "attention"
    }
    fn size(&self) -> String {
        format!("{} heads {}", extents(self.o), self.heads)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("qkv", self.o.with_c(3 * self.o.c)).activation()]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let (len, flops) = (self.o.len(), products(self.o));
        // the op takes its input, so that the forward includes a copy of q, k, v: 6 of 10
        let forward = Work { flops, network: 10 * len, others: 0 };
        let backward = Work { flops: 2.5 * flops, network: 8 * len, others: 0 }; // q, k, v, o, do; dq, dk, dv
        let (y, saved) =
            probe.call("forward", forward, || backend.attention_forward(backend.copy(&x[0]), self.heads, keep));
        let mut gradients = Gradients::new();
        if let (Some(dy), Some(saved)) = (dy, saved) {
            gradients.written(0, probe.call("vjp", backward, || backend.attention_vjp(&saved, dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    for (o, heads) in
        [(s(1, 1, 1, 1), 1), (s(2, 3, 5, 6), 2), (s(3, 7, 3, 15), 3), (s(2, 5, 5, 32), 4), (s(1, 8, 8, 17), 1)]
    {
        to.visit(Attention { o, heads })?;
    }
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    to.visit(Attention { o: Shape::new(n, 16, 16, 256), heads: 4 })?;
    Ok(())
}
