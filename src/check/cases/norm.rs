//! channel_norm.

use super::extents;
use crate::Result;
use crate::backend::{Keep, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work, accumulator};
use crate::ops::Ops;
use crate::ops::channel_norm::Modulation;

/// The modulation of `abc`, with its gates.
pub fn modulation<B: Ops>(backend: &B, abc: &B::Tensor) -> Modulation<B> {
    Modulation { abc: backend.copy(abc), gates: backend.gates(abc) }
}

/// a, b, c for `rows` noise levels. Their scale is what a trained network has; at a = -1 the norm would see no input.
pub fn modulation_input(rows: usize, c: usize) -> Input {
    Input::scaled("abc", Shape::rows(rows, 3 * c), 0.3)
}

/// How a modulation is shared, for people.
pub fn noise_levels(rows: usize) -> &'static str {
    if rows == 1 { "one noise level" } else { "a noise level each" }
}

pub struct ChannelNorm {
    x: Shape,
    rows: Option<usize>,
}

impl ChannelNorm {
    pub fn new(x: Shape, rows: Option<usize>) -> Self {
        Self { x, rows }
    }
}

impl Case for ChannelNorm {
    fn op(&self) -> &'static str {
        "channel_norm"
    }
    fn size(&self) -> String {
        format!("{} {}", extents(self.x), self.rows.map_or("not modulated", noise_levels))
    }
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::normal("x", self.x).activation()];
        inputs.extend(self.rows.map(|rows| modulation_input(rows, self.x.c)));
        inputs
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let (x, abc) = (&x[0], x.get(1));
        let m = abc.map(|abc| modulation(backend, abc));
        let s = self.x;
        let forward = Work::pass(8.0, &[s, s]); // modulation 2, mean 1, variance 3, result 2
        let backward = Work::pass(10.0, &[s, s, s]); // two means 3, dz 5, modulation 2
        let (y, rstd) = probe.call("forward", forward, || backend.channel_norm_forward(x, m.as_ref()));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", backward, || backend.channel_norm_vjp(&y, &rstd, m.as_ref(), dy)));
            if let (Keep::All, Some(abc)) = (keep, abc) {
                let mut dabc = accumulator(backend, abc);
                probe.call("vjp params", backward, || backend.channel_norm_vjp_params(x, &y, &rstd, dy, &mut dabc));
                gradients.added(1, dabc);
            }
        }
        Ok(Outcome { values: vec![("y", y), ("rstd", rstd)], gradients })
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    to.visit(ChannelNorm::new(s(1, 1, 1, 3), None))?;
    to.visit(ChannelNorm::new(s(3, 5, 3, 17), None))?;
    to.visit(ChannelNorm::new(s(3, 5, 7, 19), Some(1)))?;
    to.visit(ChannelNorm::new(s(3, 3, 5, 33), Some(3)))?;
    to.visit(ChannelNorm::new(s(2, 4, 4, 64), Some(1)))?;
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    to.visit(ChannelNorm::new(Shape::new(n, 32, 32, 128), Some(1)))?;
    to.visit(ChannelNorm::new(Shape::new(n, 16, 16, 256), Some(1)))?;
    Ok(())
}
