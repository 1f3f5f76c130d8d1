//! cg: one generic form for the host backends.

use super::{BREAKDOWN, CONVERGED, CgState, ConjugateGradient, RUNNING, STATUSES};
use crate::backend::host::HostBackend;
use crate::backend::{Array, Backend, Real, Shape};
use crate::ops::vector::host::{axpy, dot};

impl<B: HostBackend> ConjugateGradient for B {
    fn cg_start(&self, r: Self::Tensor, image: Shape) -> CgState<Self> {
        let n = r.shape().n;
        assert_eq!(n, image.n, "samples of the residual and of the image");
        let (p, s) = (self.copy(&r), self.zeros(image));
        let (mut rr, mut status) = (self.alloc(Shape::rows(n, 1)), self.alloc(Shape::rows(n, 1)));
        for i in 0..n {
            rr[i] = B::Elem::of(dot(r.row(i), r.row(i)));
            status[i] = B::Elem::of(if rr[i].f64() == 0.0 { CONVERGED } else { RUNNING });
        }
        CgState { rr_start: self.copy(&rr), r, p, s, rr, status }
    }

    fn cg_update(&self, state: &mut CgState<Self>, g: &Self::Tensor, q: &Self::Tensor, rtol: f64) {
        let CgState { r, p, s, rr, rr_start, status } = state;
        assert_eq!((g.shape(), q.shape()), (s.shape(), r.shape()), "extents of g and q");
        for n in 0..r.shape().n {
            if status[n].f64() != RUNNING {
                continue;
            }
            let (pq, rq) = (dot(p.row(n), q.row(n)), dot(r.row(n), q.row(n)));
            let alpha = rr[n].f64() / pq;
            if !(pq > 0.0 && rq > 0.0 && pq.is_finite() && B::Elem::of(alpha).f64().is_finite()) {
                status[n] = B::Elem::of(BREAKDOWN);
                continue;
            }
            axpy(s.row_mut(n), alpha, g.row(n));
            axpy(r.row_mut(n), -alpha, q.row(n));
            let rr_next = dot(r.row(n), r.row(n));
            let beta = rr_next / rr[n].f64();
            for (p, r) in p.row_mut(n).iter_mut().zip(r.row(n)) {
                *p = B::Elem::of(r.f64() + beta * p.f64());
            }
            rr[n] = B::Elem::of(rr_next);
            if rr_next <= rtol * rtol * rr_start[n].f64() {
                status[n] = B::Elem::of(CONVERGED);
            }
        }
    }

    fn cg_tally(&self, tally: &mut Self::Tensor, status: &Self::Tensor) {
        assert_eq!(tally.shape(), Shape::rows(status.len(), STATUSES), "extents of the tally");
        for (n, status) in status.iter().enumerate() {
            let count = &mut tally.row_mut(n)[status.f64() as usize];
            *count = B::Elem::of(count.f64() + 1.0);
        }
    }
}
