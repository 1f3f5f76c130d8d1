//! Launches of `kernels/channel_norm.cu`.

use super::{ChannelNorm, Modulation};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Shape};

/// Threads of a block of the kernels, and pixels that one block of the parameter gradients sums.
const THREADS: usize = 256;

/// How the lanes of a warp share a row of channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Row {
    /// Neighbouring lanes that share it, a power of two.
    lanes: usize,
    /// Accesses of 16 bytes per lane, all of them held in registers; 0 when they are too many or C does not allow them.
    held: usize,
}

impl Row {
    fn new(c: usize, dtype: Dtype) -> Self {
        let wide = 16 / dtype.size();
        if !c.is_multiple_of(wide) {
            return Self { lanes: c.next_power_of_two().min(32), held: 0 };
        }
        let lanes = (c / wide).next_power_of_two().min(32);
        let held = (c / wide).div_ceil(lanes).next_power_of_two();
        Self { lanes, held: if held <= 4 { held } else { 0 } }
    }
}

/// The kernel for rows that are held in registers or not.
macro_rules! row_kernel {
    ($name:literal, $row:expr, $dtype:expr) => {
        match ($row.held, $dtype) {
            (1, Dtype::F32) => concat!($name, "_held1_f32"),
            (2, Dtype::F32) => concat!($name, "_held2_f32"),
            (4, Dtype::F32) => concat!($name, "_held4_f32"),
            (_, Dtype::F32) => concat!($name, "_reread_f32"),
            (1, Dtype::Bf16) => concat!($name, "_held1_bf16"),
            (2, Dtype::Bf16) => concat!($name, "_held2_bf16"),
            (4, Dtype::Bf16) => concat!($name, "_held4_bf16"),
            (_, Dtype::Bf16) => concat!($name, "_reread_bf16"),
        }
    };
}

/// A group of lanes for every pixel; the last arguments of the kernels are extents.
fn per_pixel(kernel: &'static str, s: Shape, row: Row, args: Args) -> Launch {
    let count = s.n * s.pixels();
    assert!(s.len() < 1 << 31, "{s:?}: too many elements for one launch");
    let args = args.arg(count as i32).arg(s.pixels() as i32).arg(s.c as i32).arg(row.lanes as i32);
    Launch::blocks(kernel, count.div_ceil(THREADS / row.lanes), THREADS, args)
}

/// Rows of the modulation of `s`: 1 or as many as samples.
fn rows(s: Shape, m: Option<&Modulation<Cuda>>) -> i32 {
    let rows = m.map_or(1, |m| m.abc.shape().n);
    assert!(rows == 1 || rows == s.n, "{rows} rows of modulation for {s:?}");
    assert!(m.is_none_or(|m| m.abc.shape().row() == 3 * s.c), "the modulation is not one for {s:?}");
    rows as i32
}

impl Cuda {
    /// dx = norm's VJP of `dy`, plus r `dout`: the end of a block's VJP, whose residual path it adds.
    pub fn channel_norm_vjp_add(
        &self,
        y: &CudaTensor,
        rstd: &CudaTensor,
        m: &Modulation<Self>,
        dy: &CudaTensor,
        dout: &CudaTensor,
    ) -> CudaTensor {
        self.norm_vjp(y, rstd, Some(m), dy, Some(dout))
    }

    fn norm_vjp(
        &self,
        y: &CudaTensor,
        rstd: &CudaTensor,
        m: Option<&Modulation<Self>>,
        dy: &CudaTensor,
        dout: Option<&CudaTensor>,
    ) -> CudaTensor {
        let (s, dtype) = (y.shape(), y.dtype());
        for d in [dy].into_iter().chain(dout) {
            assert_eq!((d.shape(), d.dtype()), (s, dtype), "the VJP of a norm");
        }
        let dx = self.alloc_like(y);
        let row = Row::new(s.c, dtype);
        let args = Args::new().ptr(&dx).ptr(y).ptr(rstd).ptr_or_null(m.map(|m| &m.abc)).ptr(dy);
        let args = args.ptr_or_null(m.map(|m| &m.gates)).ptr_or_null(dout).arg(rows(s, m));
        self.launch(per_pixel(row_kernel!("channel_norm_vjp", row, dtype), s, row, args));
        dx
    }
}

impl ChannelNorm for Cuda {
    fn channel_norm_forward(&self, x: &CudaTensor, m: Option<&Modulation<Self>>) -> (CudaTensor, CudaTensor) {
        let (s, dtype) = (x.shape(), x.dtype());
        let (y, rstd) = (self.alloc_like(x), self.alloc_as(s.with_c(1), Dtype::F32));
        let row = Row::new(s.c, dtype);
        let args = Args::new().ptr(&y).ptr(&rstd).ptr(x).ptr_or_null(m.map(|m| &m.abc)).arg(rows(s, m));
        self.launch(per_pixel(row_kernel!("channel_norm_forward", row, dtype), s, row, args));
        (y, rstd)
    }

    fn channel_norm_vjp(
        &self,
        y: &CudaTensor,
        rstd: &CudaTensor,
        m: Option<&Modulation<Self>>,
        dy: &CudaTensor,
    ) -> CudaTensor {
        self.norm_vjp(y, rstd, m, dy, None)
    }

    fn channel_norm_vjp_params(
        &self,
        x: &CudaTensor,
        y: &CudaTensor,
        rstd: &CudaTensor,
        dy: &CudaTensor,
        dabc: &mut CudaTensor,
    ) {
        let (s, dtype) = (x.shape(), x.dtype());
        for d in [y, dy] {
            assert_eq!((d.shape(), d.dtype()), (s, dtype), "the parameter gradients of a norm");
        }
        self.add_column_sums(s, 0..2 * s.c, dabc, |partial, grid| Launch {
            grid,
            ..Launch::blocks(
                crate::kernel!("channel_norm_vjp_params", dtype),
                1,
                THREADS,
                Args::new().ptr(partial).ptr(x).ptr(y).ptr(rstd).ptr(dy).arg(s.pixels() as i32).arg(s.c as i32),
            )
        });
    }
}
