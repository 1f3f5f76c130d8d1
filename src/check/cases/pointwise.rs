//! silu, gated_residual, upsample and concat.

use super::extents;
use super::norm::{modulation, modulation_input, noise_levels};
use crate::Result;
use crate::backend::{Keep, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work, accumulator};
use crate::ops::Ops;

struct Silu(Shape);

impl Case for Silu {
    fn op(&self) -> &'static str {
        "silu"
    }
    fn size(&self) -> String {
        extents(self.0)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::scaled("x", self.0, 3.0).activation()] // far enough to saturate
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let (forward, backward) = (Work::pass(7.0, &[self.0; 3]), Work::pass(1.0, &[self.0; 3]));
        let (y, derivative) = probe.call("forward", forward, || backend.silu_forward(&x[0], keep));
        let mut gradients = Gradients::new();
        if let (Some(dy), Some(derivative)) = (dy, derivative) {
            gradients.written(0, probe.call("vjp", backward, || backend.silu_vjp(&derivative, dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct GatedResidual {
    x: Shape,
    rows: usize,
}

impl Case for GatedResidual {
    fn op(&self) -> &'static str {
        "gated_residual"
    }
    fn size(&self) -> String {
        format!("{} {}", extents(self.x), noise_levels(self.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::normal("x", self.x).activation(),
            Input::normal("branch", self.x).activation(),
            modulation_input(self.rows, self.x.c),
        ]
    }
    fn linear(&self) -> &'static [usize] {
        &[0, 1]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let [x, branch, abc] = x else { unreachable!("three inputs") };
        let m = modulation(backend, abc);
        let pass = |flops| Work::pass(flops, &[self.x; 3]);
        let y = probe.call("forward", pass(3.0), || backend.gated_residual_forward(x, branch, &m));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let (dx, dbranch) = probe.call("vjp", pass(2.0), || backend.gated_residual_vjp(&m, dy));
            gradients.written(0, dx);
            gradients.written(1, dbranch);
            if keep == Keep::All {
                let mut dabc = accumulator(backend, abc);
                probe.call("vjp params", pass(8.0), || {
                    backend.gated_residual_vjp_params(x, branch, &m, dy, &mut dabc);
                });
                gradients.added(2, dabc);
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Upsample(Shape);

impl Case for Upsample {
    fn op(&self) -> &'static str {
        "upsample"
    }
    fn size(&self) -> String {
        extents(self.0)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("x", self.0).activation()]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let work = |flops| Work::pass(flops, &[self.0; 5]);
        let y = probe.call("forward", work(0.0), || backend.upsample_forward(&x[0]));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work(3.0), || backend.upsample_vjp(dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Concat(Shape, Shape);

impl Case for Concat {
    fn op(&self) -> &'static str {
        "concat"
    }
    fn size(&self) -> String {
        format!("{} and {}", extents(self.0), self.1.c)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("x1", self.0).activation(), Input::normal("x2", self.1).activation()]
    }
    fn linear(&self) -> &'static [usize] {
        &[0, 1]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let work = Work::pass(0.0, &[self.0, self.1, self.0, self.1]);
        let y = probe.call("forward", work, || backend.concat_forward(&x[0], &x[1]));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let (dx1, dx2) = probe.call("vjp", work, || backend.concat_vjp(dy, self.0.c));
            gradients.written(0, dx1);
            gradients.written(1, dx2);
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    for x in [s(1, 1, 1, 1), s(3, 5, 7, 3), s(2, 3, 5, 33)] {
        to.visit(Silu(x))?;
        to.visit(GatedResidual { x, rows: 1 })?;
        to.visit(GatedResidual { x, rows: x.n })?;
        to.visit(Upsample(x))?;
        to.visit(Concat(x, x.with_c(x.c + 4)))?;
    }
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let x = Shape::new(n, 32, 32, 128);
    to.visit(Silu(x))?;
    to.visit(GatedResidual { x, rows: 1 })?;
    to.visit(Upsample(Shape { h: 16, w: 16, ..x }))?;
    to.visit(Concat(x, x))?;
    Ok(())
}
