//! patch, mask, fourier, filter, dense and dplr: linear maps without parameters to learn.

use super::extents;
use crate::Result;
use crate::backend::{Array, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work};
use crate::ops::Ops;
use crate::ops::filter::FilterSpec;

struct PatchFold {
    x: Shape,
    patch: usize,
}

/// The inverse of `PatchFold`.
struct PatchUnfold(PatchFold);

impl PatchFold {
    fn folded(&self) -> Shape {
        let Self { x, patch } = *self;
        Shape::new(x.n, x.h / patch, x.w / patch, patch * patch * x.c)
    }
}

impl Case for PatchFold {
    fn op(&self) -> &'static str {
        "patch"
    }
    fn size(&self) -> String {
        format!("fold {} by {}", extents(self.x), self.patch)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("x", self.x).activation()]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let work = Work::pass(0.0, &[self.x; 2]);
        let y = probe.call("forward", work, || backend.patch_fold(&x[0], self.patch));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.patch_unfold(dy, self.patch)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

impl Case for PatchUnfold {
    fn op(&self) -> &'static str {
        "patch"
    }
    fn size(&self) -> String {
        format!("unfold {} by {}", extents(self.0.folded()), self.0.patch)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("y", self.0.folded()).activation()]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let work = Work::pass(0.0, &[self.0.x; 2]);
        let y = probe.call("forward", work, || backend.patch_unfold(&x[0], self.0.patch));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.patch_fold(dy, self.0.patch)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Mask {
    x: Shape,
    rows: usize,
}

impl Case for Mask {
    fn op(&self) -> &'static str {
        "mask"
    }
    fn size(&self) -> String {
        format!("{} masks {}", extents(self.x), self.rows)
    }
    fn inputs(&self) -> Vec<Input> {
        let mask = self.x.with_n(self.rows).with_c(1);
        vec![Input::normal("x", self.x), Input::mask("mask", mask, 0.5)]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, mask] = x else { unreachable!("two inputs") };
        let work = Work::pass_f32(1.0, &[self.x; 2]).and_f32(mask.shape().len());
        let y = probe.call("forward", work, || backend.mask_apply(mask, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.mask_apply(mask, dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Fourier {
    x: Shape,
    rows: usize,
}

impl Case for Fourier {
    fn op(&self) -> &'static str {
        "fourier"
    }
    fn size(&self) -> String {
        format!("{} masks {}", extents(self.x), self.rows)
    }
    fn inputs(&self) -> Vec<Input> {
        let mask = Shape::new(self.rows, 1, self.x.w, 1);
        vec![Input::normal("x", self.x), Input::mask("mask", mask, 0.5)]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, mask] = x else { unreachable!("two inputs") };
        let y = self.x.with_c(2);
        let flops = 5.0 * (self.x.len() as f64) * (self.x.pixels() as f64).log2(); // as FFTs are counted
        let work = Work { flops, network: 0, others: self.x.len() + y.len() + mask.shape().len() };
        let y = probe.call("forward", work, || backend.fourier_forward(mask, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.fourier_adjoint(mask, dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Filter {
    x: Shape,
    kernel: (usize, usize),
    spec: FilterSpec,
}

impl Case for Filter {
    fn op(&self) -> &'static str {
        "filter"
    }
    fn size(&self) -> String {
        format!("{} by {}x{} stride {}", extents(self.x), self.kernel.0, self.kernel.1, self.spec.stride)
    }
    fn inputs(&self) -> Vec<Input> {
        let (a, b) = self.kernel;
        let kernel = Input::scaled("kernel", Shape::new(1, a, b, 1), 1.0 / ((a * b) as f64).sqrt());
        vec![Input::normal("x", self.x), kernel]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, kernel] = x else { unreachable!("two inputs") };
        let y = self.spec.filtered(self.x);
        let flops = 2.0 * (y.len() * self.kernel.0 * self.kernel.1) as f64;
        let work = Work { flops, network: 0, others: self.x.len() + y.len() + kernel.shape().len() };
        let y = probe.call("forward", work, || backend.filter_forward(kernel, self.spec, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.filter_adjoint(kernel, self.spec, dy)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Dense {
    x: Shape,
    m: usize,
    rows: usize,
}

impl Case for Dense {
    fn op(&self) -> &'static str {
        "dense"
    }
    fn size(&self) -> String {
        format!("{} to {} matrices {}", extents(self.x), self.m, self.rows)
    }
    fn inputs(&self) -> Vec<Input> {
        let a = Shape::new(self.rows, 1, self.m, self.x.row());
        vec![Input::normal("x", self.x), Input::scaled("a", a, 1.0 / (self.x.row() as f64).sqrt())]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, a] = x else { unreachable!("two inputs") };
        let flops = 2.0 * (self.m * self.x.len()) as f64;
        let others = self.rows * self.m * self.x.row() + self.x.len() + self.m * self.x.n;
        let work = Work { flops, network: 0, others };
        let y = probe.call("forward", work, || backend.dense_forward(a, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.dense_adjoint(a, dy, self.x)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

struct Dplr {
    x: Shape,
    rank: usize,
    rows: usize,
}

impl Case for Dplr {
    fn op(&self) -> &'static str {
        "dplr"
    }
    fn size(&self) -> String {
        format!("{} rank {} matrices {}", extents(self.x), self.rank, self.rows)
    }
    fn inputs(&self) -> Vec<Input> {
        let d = Shape::rows(self.rows, self.x.row());
        let w = Shape::new(self.rows, 1, self.rank, self.x.row());
        vec![
            Input::normal("x", self.x),
            Input::normal("d", d),
            Input::scaled("w", w, 1.0 / (self.x.row() as f64).sqrt()),
        ]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, d, w] = x else { unreachable!("three inputs") };
        let flops = (4.0 * self.rank as f64 + 2.0) * self.x.len() as f64;
        let others = self.rows * (self.rank + 1) * self.x.row() + 2 * self.x.len();
        let work = Work { flops, network: 0, others };
        let y = probe.call("forward", work, || backend.dplr_apply(d, w, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.dplr_apply(d, w, dy))); // symmetric
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    for (x, patch) in [(s(3, 5, 7, 3), 1), (s(2, 6, 10, 3), 2), (s(1, 9, 3, 5), 3), (s(2, 4, 8, 1), 4)] {
        to.visit(PatchFold { x, patch })?;
        to.visit(PatchUnfold(PatchFold { x, patch }))?;
    }
    for rows in [1, 3] {
        to.visit(Mask { x: s(3, 5, 7, 3), rows })?;
        to.visit(Fourier { x: s(3, 7, 10, 1), rows })?;
        to.visit(Dense { x: s(3, 3, 5, 3), m: 7, rows })?;
        to.visit(Dplr { x: s(3, 3, 5, 3), rank: 5, rows })?;
    }
    let spec = |anchor, stride| FilterSpec { anchor, stride };
    // an even kernel, one larger than the image, and strides
    for (kernel, spec) in [((4, 3), spec((2, 1), 1)), ((13, 1), spec((6, 0), 1)), ((8, 5), spec((5, 2), 3))] {
        to.visit(Filter { x: s(2, 6, 9, 3), kernel, spec })?;
    }
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let x = Shape::new(n, 32, 32, 3);
    to.visit(Mask { x, rows: n })?;
    to.visit(Fourier { x: Shape::new(n, 320, 320, 1), rows: n })?;
    to.visit(Filter { x, kernel: (9, 9), spec: FilterSpec::blur(9, 9) })?;
    to.visit(Dense { x, m: 768, rows: 1 })?;
    to.visit(Dplr { x, rank: 64, rows: 1 })?;
    Ok(())
}
