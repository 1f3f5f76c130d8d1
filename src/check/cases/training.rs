//! adam, ema, global_norm, denoising_loss and dropout: what training needs besides the network.

use super::extents;
use super::norm::noise_levels;
use crate::Result;
use crate::backend::Shape;
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work};
use crate::ops::TrainingOps;
use crate::ops::adam::AdamStep;
use crate::ops::noise::{Purpose, Stream};

/// One step of so many parameters, by a gradient that is clipped.
struct Adam(usize);

impl Case for Adam {
    fn op(&self) -> &'static str {
        "adam"
    }
    fn size(&self) -> String {
        self.0.to_string()
    }
    fn inputs(&self) -> Vec<Input> {
        let x = Shape::flat(self.0);
        // v is a mean of squares: not negative
        vec![Input::normal("p", x), Input::normal("m", x), Input::mask("v", x, 0.5), Input::normal("g", x)]
    }
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, .. } = at;
        let g = &x[3];
        let [mut p, mut m, mut v] = [0, 1, 2].map(|i| backend.copy(&x[i]));
        let norm = backend.global_norm(&[g]);
        let step = AdamStep { weight_decay: 0.02, ..AdamStep::new(3, 1e-2) };
        let work = Work::pass_f32(14.0, &[Shape::flat(self.0); 7]);
        probe.call("step", work, || backend.adam_step(&step, &mut p, &mut m, &mut v, g, &norm));
        Ok(Outcome { values: vec![("p", p), ("m", m), ("v", v)], gradients: Gradients::new() })
    }
}

struct Ema(usize);

impl Case for Ema {
    fn op(&self) -> &'static str {
        "ema"
    }
    fn size(&self) -> String {
        self.0.to_string()
    }
    fn inputs(&self) -> Vec<Input> {
        ["e", "p"].map(|name| Input::normal(name, Shape::flat(self.0))).into()
    }
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, .. } = at;
        let mut e = backend.copy(&x[0]);
        let work = Work::pass_f32(3.0, &[Shape::flat(self.0); 3]);
        probe.call("update", work, || backend.ema_update(&mut e, &x[1], 0.9));
        Ok(Outcome::new(e, Gradients::new()))
    }
}

/// Of an array of so many elements and one of a third of them.
struct GlobalNorm(usize);

impl GlobalNorm {
    fn arrays(&self) -> [Shape; 2] {
        [self.0, self.0.div_ceil(3)].map(Shape::flat)
    }
}

impl Case for GlobalNorm {
    fn op(&self) -> &'static str {
        "global_norm"
    }
    fn size(&self) -> String {
        format!("{} and {}", self.0, self.0.div_ceil(3))
    }
    fn inputs(&self) -> Vec<Input> {
        let [x, y] = self.arrays();
        vec![Input::normal("x", x), Input::scaled("y", y, 3.0)]
    }
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, .. } = at;
        let work = Work::pass_f32(8.0 / 3.0, &self.arrays());
        let norm = probe.call("forward", work, || backend.global_norm(&[&x[0], &x[1]]));
        Ok(Outcome::new(norm, Gradients::new()))
    }
}

struct DenoisingLoss {
    x: Shape,
    rows: usize,
}

impl Case for DenoisingLoss {
    fn op(&self) -> &'static str {
        "denoising_loss"
    }
    fn size(&self) -> String {
        format!("{} {}", extents(self.x), noise_levels(self.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        ["d", "x"].map(|name| Input::normal(name, self.x)).into()
    }
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let sigma: Vec<f64> = (0..self.rows).map(|i| 0.1 + 0.7 * i as f64).collect();
        let work = Work::pass_f32(4.0, &[self.x; 3]);
        let (loss, dd) = probe.call("forward", work, || backend.denoising_loss(&x[0], &x[1], &sigma));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            // dd is the gradient of the losses' mean
            let weighted = backend.row_scale(&dd, dy);
            gradients.written(0, backend.linear_combination(&[(self.x.n as f64, &weighted)]));
        }
        Ok(Outcome::new(loss, gradients))
    }
}

struct Dropout(Shape);

impl Case for Dropout {
    fn op(&self) -> &'static str {
        "dropout"
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
    fn run<B: TrainingOps>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let stream = Stream::new(11, Purpose::Test).at(2, 1);
        let samples: Vec<u32> = (0..self.0.n as u32).map(|i| 3 * i + 1).collect();
        let work = Work::pass(1.0, &[self.0; 2]);
        let mut y = backend.copy(&x[0]);
        probe.call("forward", work, || backend.dropout(&mut y, 0.1, stream, &samples));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let mut dx = backend.copy(dy);
            probe.call("vjp", work, || backend.dropout(&mut dx, 0.1, stream, &samples));
            gradients.written(0, dx);
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    for len in [1, 1203, (1 << 14) + 5] {
        to.visit(Adam(len))?;
        to.visit(Ema(len))?;
        to.visit(GlobalNorm(len))?;
    }
    for x in [Shape::new(3, 5, 7, 3), Shape::new(2, 4, 4, 32)] {
        to.visit(DenoisingLoss { x, rows: 1 })?;
        to.visit(DenoisingLoss { x, rows: x.n })?;
        to.visit(Dropout(x))?;
    }
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let parameters = n << 18; // of the cifar network: 57.6 million
    to.visit(Adam(parameters))?;
    to.visit(Ema(parameters))?;
    to.visit(GlobalNorm(parameters))?;
    to.visit(DenoisingLoss { x: Shape::new(n, 32, 32, 3), rows: 1 })?;
    to.visit(Dropout(Shape::new(n, 32, 32, 128)))?;
    Ok(())
}
