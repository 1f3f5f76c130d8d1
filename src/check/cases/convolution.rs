//! conv2d and linear.

use super::{extents, params};
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work, accumulator};
use crate::ops::Ops;
use crate::ops::conv2d::Conv2dSpec;

pub struct Conv2d {
    x: Shape,
    spec: Conv2dSpec,
}

impl Conv2d {
    pub fn new(x: Shape, c_out: usize, stride: usize) -> Self {
        Self { x, spec: Conv2dSpec { c_in: x.c, c_out, stride } }
    }
}

impl Case for Conv2d {
    fn op(&self) -> &'static str {
        "conv2d"
    }
    fn size(&self) -> String {
        format!("{} to {} stride {}", extents(self.x), self.spec.c_out, self.spec.stride)
    }
    fn inputs(&self) -> Vec<Input> {
        let Conv2dSpec { c_in, c_out, .. } = self.spec;
        vec![
            Input::normal("x", self.x).activation(),
            Input::weights("w", 9 * c_in * c_out, 9 * c_in),
            Input::normal("b", Shape::flat(c_out)),
        ]
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let [x, w, b] = x else { unreachable!("three inputs") };
        let k = backend.conv2d(self.spec, w, b, self.x, true);
        let network = self.x.len() + self.spec.output(self.x).len() + w.shape().len();
        let work = Work { flops: self.spec.flops(self.x), network, others: 0 };
        let y = probe.call("forward", work, || backend.conv2d_forward(&k, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.conv2d_vjp(&k, self.x, dy)));
            if keep == Keep::All {
                let (mut dw, mut db) = (accumulator(backend, w), accumulator(backend, b));
                let work = params(work, w);
                probe.call("vjp params", work, || backend.conv2d_vjp_params(&k, x, dy, &mut dw, &mut db));
                gradients.added(1, dw);
                gradients.added(2, db);
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub struct Linear {
    pub x: Shape,
    pub c_out: usize,
    bias: bool,
}

impl Linear {
    pub fn new(x: Shape, c_out: usize, bias: bool) -> Self {
        Self { x, c_out, bias }
    }
    /// Of the forward, and of the VJP.
    pub fn work(&self) -> Work {
        let Self { x, c_out, .. } = *self;
        let y = x.with_c(c_out);
        Work { flops: 2.0 * (x.c * y.len()) as f64, network: x.len() + y.len() + x.c * c_out, others: 0 }
    }
}

impl Case for Linear {
    fn op(&self) -> &'static str {
        "linear"
    }
    fn size(&self) -> String {
        format!("{} to {}{}", extents(self.x), self.c_out, if self.bias { "" } else { " without bias" })
    }
    fn inputs(&self) -> Vec<Input> {
        let mut inputs =
            vec![Input::normal("x", self.x).activation(), Input::weights("w", self.x.c * self.c_out, self.x.c)];
        inputs.extend(self.bias.then(|| Input::normal("b", Shape::flat(self.c_out))));
        inputs
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, keep } = at;
        let (x, w, b) = (&x[0], &x[1], x.get(2));
        let k = backend.linear(self.x.c, self.c_out, w, b);
        let work = self.work();
        let y = probe.call("forward", work, || backend.linear_forward(&k, x));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.linear_vjp(&k, dy)));
            if keep == Keep::All {
                let (mut dw, mut db) = (accumulator(backend, w), b.map(|b| accumulator(backend, b)));
                let work = params(work, w);
                probe.call("vjp params", work, || backend.linear_vjp_params(&k, x, dy, &mut dw, db.as_mut()));
                gradients.added(1, dw);
                db.into_iter().for_each(|db| gradients.added(2, db));
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    to.visit(Conv2d::new(s(1, 1, 1, 1), 1, 1))?; // smaller than the window
    to.visit(Conv2d::new(s(2, 5, 7, 3), 5, 1))?;
    to.visit(Conv2d::new(s(3, 7, 5, 3), 4, 2))?;
    to.visit(Conv2d::new(s(2, 8, 8, 8), 16, 2))?;
    to.visit(Conv2d::new(s(1, 9, 13, 17), 33, 1))?; // across the tiles and panels of every algorithm, and its ends
    to.visit(Conv2d::new(s(2, 11, 6, 33), 17, 2))?;
    to.visit(Conv2d::new(s(2, 8, 8, 32), 32, 1))?;
    to.visit(Conv2d::new(s(1, 2, 2, 40), 36, 1))?;
    to.visit(Linear::new(s(1, 1, 1, 1), 1, true))?;
    to.visit(Linear::new(s(3, 1, 1, 17), 35, true))?;
    to.visit(Linear::new(s(2, 5, 3, 33), 7, false))?;
    to.visit(Linear::new(s(2, 4, 4, 32), 96, true))?;
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let s = Shape::new;
    to.visit(Conv2d::new(s(n, 32, 32, 3), 128, 1))?;
    to.visit(Conv2d::new(s(n, 32, 32, 128), 128, 1))?;
    to.visit(Conv2d::new(s(n, 16, 16, 256), 256, 1))?;
    to.visit(Conv2d::new(s(n, 8, 8, 384), 384, 1))?;
    to.visit(Conv2d::new(s(n, 32, 32, 128), 256, 2))?;
    to.visit(Conv2d::new(s(n, 16, 16, 256), 384, 2))?;
    linears(n).into_iter().try_for_each(|layer| to.visit(layer))
}

/// The linear layers of the CIFAR-10 U-Net at a batch of `n`: queries, keys and values; projection; head; and one of the MLP.
pub fn linears(n: usize) -> [Linear; 4] {
    let s = Shape::new;
    [
        Linear::new(s(n, 16, 16, 256), 768, true),
        Linear::new(s(n, 16, 16, 256), 256, false),
        Linear::new(s(n, 32, 32, 128), 3, true),
        Linear::new(s(256 * n, 1, 1, 256), 256, true),
    ]
}
