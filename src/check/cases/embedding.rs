//! noise_embedding and precondition: what depends on the noise level.

use super::extents;
use super::norm::noise_levels;
use crate::Result;
use crate::backend::Shape;
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work};
use crate::ops::Ops;

struct NoiseEmbedding {
    rows: usize,
    features: usize,
}

impl Case for NoiseEmbedding {
    fn op(&self) -> &'static str {
        "noise_embedding"
    }
    fn size(&self) -> String {
        format!("{} to {}", self.rows, self.features)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::scaled("log_sigma", Shape::rows(self.rows, 1), 3.0)] // ln σ of the paper: -6.9 to 4.6
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let log_sigma = backend.to_vec(&x[0])?;
        let work = Work::pass_f32(2.0, &[Shape::rows(self.rows, self.features)]);
        let y = probe.call("forward", work, || backend.noise_embedding_forward(&log_sigma, self.features));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let d = backend.noise_embedding_vjp(&log_sigma, dy)?; // a direct call: it reads the device
            gradients.written(0, backend.upload(Shape::rows(self.rows, 1), &d));
        }
        Ok(Outcome::new(y, gradients))
    }
}

/// c_in x, the network's input.
struct PreconditionInput(Precondition);

/// c_skip x + c_out f(c_in x), with the identity for f's derivative: all of the VJP at once.
struct Precondition {
    x: Shape,
    rows: usize,
}

impl Precondition {
    /// From nearly no noise to nearly nothing else.
    fn sigma(&self) -> Vec<f64> {
        (0..self.rows).map(|i| 0.03 * 7f64.powi(i as i32)).collect()
    }
    /// Over `arrays` arrays of f32 beside the network's input or output.
    fn work(&self, flops: f64, arrays: usize) -> Work {
        Work::pass(flops, &[self.x]).and_f32(arrays * self.x.len())
    }
}

impl Case for PreconditionInput {
    fn op(&self) -> &'static str {
        "precondition"
    }
    fn size(&self) -> String {
        format!("input {} {}", extents(self.0.x), noise_levels(self.0.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("x", self.0.x)]
    }
    fn network(&self) -> bool {
        true
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let (sigma, work) = (self.0.sigma(), self.0.work(1.0, 1));
        let y = probe.call("forward", work, || backend.precondition_input(&x[0], &sigma));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            gradients.written(0, probe.call("vjp", work, || backend.precondition_input(dy, &sigma)));
        }
        Ok(Outcome::new(y, gradients))
    }
}

impl Case for Precondition {
    fn op(&self) -> &'static str {
        "precondition"
    }
    fn size(&self) -> String {
        format!("output {} {}", extents(self.x), noise_levels(self.rows))
    }
    fn inputs(&self) -> Vec<Input> {
        vec![Input::normal("x", self.x), Input::normal("f", self.x).activation()]
    }
    fn linear(&self) -> &'static [usize] {
        &[0, 1]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, f] = x else { unreachable!("two inputs") };
        let sigma = self.sigma();
        // the network is f plus the identity, so that x reaches y both ways
        let network = backend.linear_combination(&[(1.0, f), (1.0, &backend.precondition_input(x, &sigma))]);
        let y = probe.call("forward", self.work(3.0, 2), || backend.precondition_output(x, &network, &sigma));
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let df = probe.call("vjp f", self.work(1.0, 1), || backend.precondition_output_vjp(dy, &sigma));
            gradients.written(0, probe.call("vjp", self.work(3.0, 2), || backend.precondition_vjp(dy, &df, &sigma)));
            gradients.written(1, df);
        }
        Ok(Outcome::new(y, gradients))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let s = Shape::new;
    for (rows, features) in [(1, 2), (3, 6), (5, 64)] {
        to.visit(NoiseEmbedding { rows, features })?;
    }
    for (x, rows) in [(s(3, 5, 7, 3), 1), (s(3, 3, 5, 2), 3)] {
        to.visit(PreconditionInput(Precondition { x, rows }))?;
        to.visit(Precondition { x, rows })?;
    }
    Ok(())
}
