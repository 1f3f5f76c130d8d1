//! Launches of `kernels/gated_residual.cu`.

use super::GatedResidual;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend};
use crate::kernel;
use crate::ops::channel_norm::Modulation;

/// The gates, their rows, and the extents of an array: the last arguments of the elementwise kernels.
fn gated(args: Args, m: &Modulation<Cuda>, x: &CudaTensor) -> Args {
    let s = x.shape();
    let args = args.ptr(&m.gates).arg(rows(m, x) as u32);
    args.arg(s.row() as u32).arg(s.c as u32).arg(s.len() as u32)
}

fn per_group(kernel: &'static str, x: &CudaTensor, args: Args) -> Launch {
    Launch::elements(kernel, x.shape().c, x.shape().len(), x.dtype(), args)
}

fn rows(m: &Modulation<Cuda>, x: &CudaTensor) -> usize {
    let (gates, s) = (m.gates.shape(), x.shape());
    assert!(gates.row() == 2 * s.c && (gates.n == 1 || gates.n == s.n), "gates {gates:?} for {s:?}");
    gates.n
}

impl Cuda {
    /// c r `dy`: the gradient of the branch alone.
    pub fn gated_residual_vjp_branch(&self, m: &Modulation<Self>, dy: &CudaTensor) -> CudaTensor {
        let dbranch = self.alloc_like(dy);
        self.gated_vjp(None, &dbranch, m, dy);
        dbranch
    }

    fn gated_vjp(&self, dx: Option<&CudaTensor>, dbranch: &CudaTensor, m: &Modulation<Self>, dy: &CudaTensor) {
        let args = gated(Args::new().ptr_or_null(dx).ptr(dbranch).ptr(dy), m, dy);
        self.launch(per_group(kernel!("gated_residual_vjp", dy.dtype()), dy, args));
    }
}

impl GatedResidual for Cuda {
    fn gates(&self, abc: &CudaTensor) -> CudaTensor {
        let s = abc.shape();
        let c = s.c / 3;
        let gates = self.alloc(s.with_c(2 * c));
        let args = Args::new().ptr(&gates).ptr(abc).arg(s.n as u32).arg(c as u32);
        self.launch(Launch::per_item("gated_residual_gates_f32", s.n * c, args));
        gates
    }

    fn gated_residual_forward(&self, x: &CudaTensor, branch: &CudaTensor, m: &Modulation<Self>) -> CudaTensor {
        assert_eq!((branch.shape(), branch.dtype()), (x.shape(), x.dtype()), "gated residual");
        let y = self.alloc_like(x);
        let args = gated(Args::new().ptr(&y).ptr(x).ptr(branch), m, x);
        self.launch(per_group(kernel!("gated_residual_forward", x.dtype()), x, args));
        y
    }

    fn gated_residual_vjp(&self, m: &Modulation<Self>, dy: &CudaTensor) -> (CudaTensor, CudaTensor) {
        let (dx, dbranch) = (self.alloc_like(dy), self.alloc_like(dy));
        self.gated_vjp(Some(&dx), &dbranch, m, dy);
        (dx, dbranch)
    }

    fn gated_residual_vjp_params(
        &self,
        x: &CudaTensor,
        branch: &CudaTensor,
        m: &Modulation<Self>,
        dy: &CudaTensor,
        dabc: &mut CudaTensor,
    ) {
        let s = x.shape();
        for d in [branch, dy] {
            assert_eq!((d.shape(), d.dtype()), (s, x.dtype()), "the parameter gradients of a gated residual");
        }
        self.add_column_sums(s, 2 * s.c..3 * s.c, dabc, |partial, grid| {
            let args = Args::new().ptr(partial).ptr(x).ptr(branch).ptr(&m.gates).arg(rows(m, x) as u32).ptr(dy);
            let args = args.arg(s.pixels() as i32).arg(s.c as i32);
            Launch { grid, ..Launch::blocks(kernel!("gated_residual_vjp_params", x.dtype()), 1, 256, args) }
        });
    }
}
