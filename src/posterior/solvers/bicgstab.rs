//! Stabilised biconjugate gradient (van der Vorst, 1992).

use super::{Solution, axpy, dots, scalars};
use crate::Result;
use crate::backend::Shape;
use crate::ops::Vector;
use crate::ops::cg::{BREAKDOWN, CONVERGED, RUNNING};

/// See [`super::Solver::solve`].
pub(super) fn solve<B: Vector>(
    backend: &B,
    iterations: usize,
    rtol: f64,
    residual: B::Tensor,
    image: Shape,
    mut system: impl FnMut(&B::Tensor) -> (B::Tensor, B::Tensor),
) -> Result<Solution<B>> {
    let shadow = backend.copy(&residual);
    let (mut r, mut p, mut s) = (residual, backend.copy(&shadow), backend.zeros(image));
    let mut samples: Vec<Sample> = dots(backend, &r, &r)?.into_iter().map(|rr| Sample::new(rr, rtol)).collect();
    for _ in 0..iterations {
        let (g, v) = system(&p);
        let shadow_v = dots(backend, &shadow, &v)?;
        let alpha = each(&mut samples, |i, sample| sample.alpha(shadow_v[i]));
        axpy(backend, &mut s, 1.0, &alpha, &g);
        axpy(backend, &mut r, -1.0, &alpha, &v);
        let rr = dots(backend, &r, &r)?;
        each(&mut samples, |i, sample| sample.check(rr[i]));

        let (g, t) = system(&r);
        let (tr, tt) = (dots(backend, &t, &r)?, dots(backend, &t, &t)?);
        let omega = each(&mut samples, |i, sample| sample.omega(tr[i], tt[i]));
        axpy(backend, &mut s, 1.0, &omega, &g);
        axpy(backend, &mut r, -1.0, &omega, &t);
        let (rr, rho) = (dots(backend, &r, &r)?, dots(backend, &shadow, &r)?);
        each(&mut samples, |i, sample| sample.check(rr[i]));

        let beta = each(&mut samples, |i, sample| sample.beta(rho[i]));
        axpy(backend, &mut p, -1.0, &omega, &v);
        p = backend.row_scale(&p, &scalars(backend, &beta));
        backend.add_assign(&mut p, &r);
    }
    let status = each(&mut samples, |_, sample| sample.status);
    Ok(Solution { s, status: scalars(backend, &status) })
}

/// One scalar for each sample.
fn each<T>(samples: &mut [Sample], mut f: impl FnMut(usize, &mut Sample) -> T) -> Vec<T> {
    samples.iter_mut().enumerate().map(|(i, sample)| f(i, sample)).collect()
}

/// The scalars of one sample. Each step gives 0 for a sample that does not run, so that its vectors keep their bits.
struct Sample {
    rho: f64, // <shadow, r>
    alpha: f64,
    omega: f64,
    tolerance: f64, // rtol² <r_0, r_0>
    status: f64,
}

impl Sample {
    fn new(rr: f64, rtol: f64) -> Self {
        let status = if rr == 0.0 { CONVERGED } else { RUNNING };
        Self { rho: rr, alpha: 0.0, omega: 0.0, tolerance: rtol * rtol * rr, status }
    }
    /// rho / <shadow, v>.
    fn alpha(&mut self, shadow_v: f64) -> f64 {
        self.alpha = self.nonzero(self.rho / shadow_v);
        self.alpha
    }
    /// <t, r> / <t, t>.
    fn omega(&mut self, tr: f64, tt: f64) -> f64 {
        self.omega = self.nonzero(tr / tt);
        self.omega
    }
    /// rho' / rho · alpha / omega.
    fn beta(&mut self, rho: f64) -> f64 {
        let beta = self.nonzero(rho / self.rho * self.alpha / self.omega);
        self.rho = rho;
        beta
    }
    /// Whether <r, r> says that the sample has converged.
    fn check(&mut self, rr: f64) {
        if self.status == RUNNING && rr <= self.tolerance {
            self.status = CONVERGED;
        }
    }
    /// `a` while the sample runs; it stops when `a` is 0 or not finite in f32.
    fn nonzero(&mut self, a: f64) -> f64 {
        if self.status != RUNNING {
            return 0.0;
        }
        if a != 0.0 && a.abs() <= f64::from(f32::MAX) {
            return a;
        }
        self.status = BREAKDOWN;
        0.0
    }
}
