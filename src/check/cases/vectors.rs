//! vector, cg and noise: what samplers and solvers are made of. They have no VJP; their values are checked.

use super::extents;
use crate::Result;
use crate::backend::{Array, Shape};
use crate::check::Visitor;
use crate::check::case::{At, Case, Gradients, Input, Outcome, Probe, Work};
use crate::ops::Ops;
use crate::ops::cg::MaskedSystem;
use crate::ops::noise::{Purpose, Stream};

struct Vector {
    x: Shape,
    rows: usize,
}

impl Case for Vector {
    fn op(&self) -> &'static str {
        "vector"
    }
    fn size(&self) -> String {
        format!("{} scalars {}", extents(self.x), self.rows)
    }
    fn inputs(&self) -> Vec<Input> {
        vec![
            Input::normal("x", self.x),
            Input::normal("y", self.x),
            Input::normal("a", Shape::rows(self.rows, 1)),
            Input::normal("shared", self.x.with_n(self.rows).with_c(1)),
        ]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, .. } = at;
        let [x, y, a, shared] = x else { unreachable!("four inputs") };
        let pass = |flops, arrays| Work::pass_f32(flops, &[self.x; 3][..arrays]);
        let combination =
            probe.call("linear_combination", pass(3.0, 3), || backend.linear_combination(&[(0.7, x), (-1.3, y)]));
        let mut sum = backend.copy(y);
        probe.call("add_assign", pass(1.0, 3), || backend.add_assign(&mut sum, x));
        let mut axpy = backend.copy(y);
        probe.call("row_axpy", pass(2.0, 3), || backend.row_axpy(&mut axpy, -0.3, a, x));
        let values = vec![
            ("linear_combination", combination),
            ("add_assign", sum),
            ("row_axpy", axpy),
            ("row_scale", probe.call("row_scale", pass(1.0, 2), || backend.row_scale(x, a))),
            ("multiply", probe.call("multiply", pass(1.0, 2), || backend.multiply(x, shared))),
            ("row_dot", probe.call("row_dot", pass(2.0, 2), || backend.row_dot(x, x))),
            ("gather_rows", backend.gather_rows(x, &[self.x.n - 1, 0])),
            ("pick_rows", backend.pick_rows(&[y, x], self.x.n - 1).swap_remove(1)),
        ];
        Ok(Outcome { values, gradients: Gradients::new() })
    }
}

/// One iteration from a random residual, with q near p so that <p, q> is positive.
struct ConjugateGradient(Shape);

impl Case for ConjugateGradient {
    fn op(&self) -> &'static str {
        "cg"
    }
    fn size(&self) -> String {
        extents(self.0)
    }
    fn inputs(&self) -> Vec<Input> {
        let vector = |name, std| Input::scaled(name, self.0, std);
        vec![vector("r", 1.0), vector("g", 1.0), vector("q", 0.3), Input::mask("mask", self.0.with_c(1), 0.5)]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, .. } = at;
        let [r, g, q, mask] = x else { unreachable!("four inputs") };
        let q = backend.linear_combination(&[(1.0, r), (1.0, q)]);
        let mut state = backend.cg_start(backend.copy(r), self.0);
        // a direct call: repeated, it would converge and then do nothing
        backend.cg_update(&mut state, g, &q, 1e-3);
        let copied = Work::pass_f32(2.0, &[self.0; 5]); // r, to r, which is read; p, s
        probe.call("start", copied, || backend.cg_start(backend.copy(r), self.0));
        // after a start, or a repetition would have nothing to do; p, q, r, s, g are read, and p, r, s written
        let iterated = Work::pass_f32(12.0, &[self.0; 5 + 8]);
        probe.call("start and update", iterated, || {
            let mut state = backend.cg_start(backend.copy(r), self.0);
            backend.cg_update(&mut state, g, &q, 1e-3);
        });
        let [cov_y, variance] = [0.1, 1.5].map(|value| backend.upload(Shape::rows(1, 1), &[value]));
        let system = MaskedSystem { mask, cov_y: &cov_y, variance: &variance };
        // near p, q serves as g: then <p, g> is positive under any mask; q is not read
        let iterated = Work::pass_f32(15.0, &[self.0; 5 + 7]).and_f32(mask.shape().len());
        let masked = probe.call("start and masked", iterated, || {
            let mut state = backend.cg_start(backend.copy(r), self.0);
            backend.cg_update_masked(&mut state, &q, &system, 1e-3);
            state
        });
        let values = vec![
            ("r", state.r),
            ("p", state.p),
            ("s", state.s),
            ("rr", state.rr),
            ("status", state.status),
            ("masked r", masked.r),
            ("masked p", masked.p),
            ("masked s", masked.s),
        ];
        Ok(Outcome { values, gradients: Gradients::new() })
    }
}

struct Noise(Shape);

impl Case for Noise {
    fn op(&self) -> &'static str {
        "noise"
    }
    fn size(&self) -> String {
        extents(self.0)
    }
    fn inputs(&self) -> Vec<Input> {
        Vec::new()
    }
    fn run<B: Ops>(&self, at: At<'_, B>, probe: &mut impl Probe) -> Result<Outcome<B>> {
        let stream = Stream::new(7, Purpose::Test).at(3, 1);
        let samples: Vec<u32> = (0..self.0.n as u32).map(|i| 5 * i + 2).collect();
        let work = Work::pass_f32(0.0, &[self.0]);
        let y = probe.call("normal", work, || at.backend.noise_normal(self.0, stream, &samples));
        Ok(Outcome::new(y, Gradients::new()))
    }
}

pub fn small(to: &mut impl Visitor) -> Result<()> {
    let x = Shape::new(3, 5, 7, 3);
    to.visit(Vector { x, rows: 1 })?;
    to.visit(Vector { x, rows: 3 })?;
    to.visit(ConjugateGradient(x))?;
    to.visit(Noise(x))?;
    Ok(())
}

pub fn large(to: &mut impl Visitor, n: usize) -> Result<()> {
    let x = Shape::new(n, 32, 32, 3);
    to.visit(Vector { x, rows: n })?;
    to.visit(ConjugateGradient(x))?;
    to.visit(Noise(x))?;
    Ok(())
}
