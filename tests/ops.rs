//! The registry of ops and networks, every case: finite differences and adjoints of the reference, the CPU backend
//! against it on every instruction set, and that the checks can fail.

use diem::Result;
use diem::backend::cpu::simd::Isa;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Array, Shape};
use diem::check::case::{At, Case, Gradients, Input, Outcome, Probe, accumulator};
use diem::check::{self, CheckRow, cross, gradient};
use diem::ops::Ops;

/// Every row passes, with the failing ones in the message.
fn assert_pass(rows: &[CheckRow]) {
    let failed: Vec<&CheckRow> = rows.iter().filter(|row| !row.pass).collect();
    assert!(!rows.is_empty() && failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_case_passes_on_every_instruction_set() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let cpu = Cpu::new(Options { isa, poison: true, ..Options::default() }).unwrap();
        let mut rows = Vec::new();
        check::run("", isa as u64, &cpu, |row| rows.push(row)).unwrap();
        assert_pass(&rows);
    }
}

#[test]
fn low_memory_passes() {
    let cpu = Cpu::new(Options { low_memory: true, poison: true, ..Options::default() }).unwrap();
    let mut rows = Vec::new();
    for op in ["conv2d", "res_block", "merge", "unet"] {
        check::run(op, 7, &cpu, |row| rows.push(row)).unwrap();
    }
    assert_pass(&rows);
}

/// What is wrong with a case.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    Nothing,
    /// The VJP is off by 1e-5, ten times what passes.
    InexactVjp,
    /// The VJP is that of another sample.
    MixedSamples,
    /// A gradient is returned as allocated.
    Unwritten,
    /// A parameter gradient overwrites its accumulator.
    Overwritten,
    /// On the backend under test the value is off by 2e-5, twice what passes.
    InexactValue,
    /// On the backend under test one element of the value is not a number.
    NotFinite,
}

/// y = a x, elementwise.
struct Product(Fault);

impl Case for Product {
    fn op(&self) -> &'static str {
        "product"
    }
    fn size(&self) -> String {
        format!("{:?}", self.0)
    }
    fn inputs(&self) -> Vec<Input> {
        ["x", "a"].map(|name| Input::normal(name, Shape::new(3, 5, 7, 3))).into()
    }
    fn linear(&self) -> &'static [usize] {
        &[0]
    }
    fn run<B: Ops>(&self, at: At<'_, B>, _probe: &mut impl Probe) -> Result<Outcome<B>> {
        let At { backend, x, dy, .. } = at;
        let [x, a] = x else { unreachable!("two inputs") };
        let mut gradients = Gradients::new();
        if let Some(dy) = dy {
            let dx = backend.multiply(dy, a);
            gradients.written(
                0,
                match self.0 {
                    Fault::InexactVjp => backend.linear_combination(&[(1.0 + 1e-5, &dx)]),
                    Fault::MixedSamples => backend.gather_rows(&dx, &[1, 0, 2]),
                    Fault::Unwritten => backend.alloc(dx.shape()),
                    _ => dx,
                },
            );
            let mut da = accumulator(backend, a);
            if self.0 == Fault::Overwritten {
                backend.fill(&mut da, 0.0);
            }
            backend.add_assign(&mut da, &backend.multiply(dy, x));
            gradients.added(1, da);
        }
        let mut y = backend.multiply(x, a);
        if backend.name() == "cpu" {
            match self.0 {
                Fault::InexactValue => y = backend.linear_combination(&[(1.0 + 2e-5, &y)]),
                Fault::NotFinite => {
                    let mut values = backend.to_vec(&y)?;
                    values[100] = f64::NAN;
                    y = backend.upload(y.shape(), &values);
                }
                _ => {}
            }
        }
        Ok(Outcome::new(y, gradients))
    }
}

#[test]
fn wrong_gradients_are_found() {
    let failed = |fault| -> Vec<String> {
        let rows = gradient::check(&Product(fault), &Reference::new(), 0).unwrap();
        rows.into_iter().filter(|row| !row.pass).map(|row| row.what).collect()
    };
    let (dx, da, adjoint) = ("dx: finite differences", "da: finite differences", "adjoint");
    assert_eq!(failed(Fault::Nothing), [""; 0]);
    assert_eq!(failed(Fault::InexactVjp), [dx, adjoint]);
    assert_eq!(failed(Fault::MixedSamples), [dx, adjoint]);
    assert_eq!(failed(Fault::Unwritten), [dx, adjoint]);
    assert_eq!(failed(Fault::Overwritten), [da]);
}

#[test]
fn wrong_values_of_a_backend_are_found() {
    let cpu = Cpu::new(Options { poison: true, ..Options::default() }).unwrap();
    let failed = |fault| -> Vec<(String, f64)> {
        let rows = cross::check(&Product(fault), &cpu, 0).unwrap();
        rows.into_iter().filter(|row| !row.pass).map(|row| (row.what, row.error)).collect()
    };
    assert_eq!(failed(Fault::Nothing), []);
    let [(what, error)] = &failed(Fault::InexactValue)[..] else { panic!("one failure") };
    assert_eq!(what, "y: cpu against reference");
    assert!((error - 2e-5).abs() < 1e-6); // rounding is 6e-8
    assert_eq!(failed(Fault::NotFinite), [("y: cpu against reference".to_owned(), f64::INFINITY)]);
    let unwritten = failed(Fault::Unwritten); // on both backends: infinite all the same
    assert_eq!(unwritten, [("dx: cpu against reference".to_owned(), f64::INFINITY)]);
}
