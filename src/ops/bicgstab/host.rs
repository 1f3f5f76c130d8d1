//! bicgstab: one generic form for the host backends.

use super::{Bicgstab, BicgstabState, NUMBERS};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};
use crate::ops::cg::{BREAKDOWN, CONVERGED, RUNNING};
use crate::ops::vector::host::{axpy, dot};

/// Whether a scalar is one to go on with: not 0, and finite in f32.
fn usable(a: f64) -> bool {
    a != 0.0 && a.abs() <= f64::from(f32::MAX)
}

impl<B: HostBackend> Bicgstab for B {
    fn bicgstab_start(&self, r: Self::Tensor, image: Shape) -> BicgstabState<Self> {
        let n = r.shape().n;
        assert_eq!(n, image.n, "samples of the residual and of the image");
        let (mut numbers, mut status) = (self.alloc(Shape::rows(n, NUMBERS)), self.alloc(Shape::rows(n, 1)));
        for i in 0..n {
            let rr = B::Elem::of(dot(r.row(i), r.row(i)));
            numbers.row_mut(i).copy_from_slice(&[rr, B::Elem::of(0.0), rr]);
            status[i] = B::Elem::of(if rr.f64() == 0.0 { CONVERGED } else { RUNNING });
        }
        BicgstabState { p: self.copy(&r), shadow: self.copy(&r), r, s: self.zeros(image), numbers, status }
    }

    fn bicgstab_bi(&self, state: &mut BicgstabState<Self>, g: &Self::Tensor, v: &Self::Tensor, rtol: f64) {
        let BicgstabState { r, shadow, s, numbers, status, .. } = state;
        assert_eq!((g.shape(), v.shape()), (s.shape(), r.shape()), "extents of g and v");
        for n in (0..r.shape().n).filter(|&n| status[n].f64() == RUNNING).collect::<Vec<_>>() {
            let [rho, alpha, rr_start] = numbers.row_mut(n) else { unreachable!("three numbers") };
            let a = rho.f64() / dot(shadow.row(n), v.row(n));
            if !usable(a) {
                status[n] = B::Elem::of(BREAKDOWN);
                continue;
            }
            axpy(s.row_mut(n), a, g.row(n));
            axpy(r.row_mut(n), -a, v.row(n));
            *alpha = B::Elem::of(a);
            if dot(r.row(n), r.row(n)) <= rtol * rtol * rr_start.f64() {
                status[n] = B::Elem::of(CONVERGED);
            }
        }
    }

    fn bicgstab_stab(
        &self,
        state: &mut BicgstabState<Self>,
        v: &Self::Tensor,
        g: &Self::Tensor,
        t: &Self::Tensor,
        rtol: f64,
    ) {
        let BicgstabState { r, p, shadow, s, numbers, status } = state;
        assert_eq!((v.shape(), g.shape(), t.shape()), (p.shape(), s.shape(), r.shape()), "extents of v, g and t");
        for n in (0..r.shape().n).filter(|&n| status[n].f64() == RUNNING).collect::<Vec<_>>() {
            let [rho, alpha, rr_start] = numbers.row_mut(n) else { unreachable!("three numbers") };
            let omega = dot(t.row(n), r.row(n)) / dot(t.row(n), t.row(n));
            if !usable(omega) {
                status[n] = B::Elem::of(BREAKDOWN);
                continue;
            }
            axpy(s.row_mut(n), omega, g.row(n));
            axpy(r.row_mut(n), -omega, t.row(n));
            if dot(r.row(n), r.row(n)) <= rtol * rtol * rr_start.f64() {
                status[n] = B::Elem::of(CONVERGED);
                continue;
            }
            let rho_next = dot(shadow.row(n), r.row(n));
            let beta = rho_next / rho.f64() * alpha.f64() / omega;
            if !usable(beta) {
                status[n] = B::Elem::of(BREAKDOWN);
                continue;
            }
            for ((p, r), v) in p.row_mut(n).iter_mut().zip(r.row(n)).zip(v.row(n)) {
                *p = B::Elem::of(r.f64() + beta * (p.f64() - omega * v.f64()));
            }
            *rho = B::Elem::of(rho_next);
        }
    }
}
