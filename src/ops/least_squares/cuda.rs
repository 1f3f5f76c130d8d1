//! Launches of `kernels/least_squares.cu`.

use super::{COLUMNS, Layout, LeastSquares, LeastSquaresState};
use crate::backend::cuda::{Args, Cuda, CudaTensor, Launch};
use crate::backend::{Array, Backend, Shape};

/// `Columns` of the kernel: (N) each.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Columns {
    x: [u64; COLUMNS],
}

impl Columns {
    fn new(x: &[CudaTensor]) -> Self {
        Self { x: std::array::from_fn(|i| x.get(i).map_or(0, CudaTensor::address)) }
    }
}

impl LeastSquares for Cuda {
    fn least_squares_start(&self, square: &CudaTensor, columns: usize) -> LeastSquaresState<Self> {
        assert!(columns <= COLUMNS, "least squares of {columns} columns");
        let n = square.shape().n;
        let numbers = self.alloc(Shape::rows(n, Layout::new(columns).len()));
        let status = self.alloc(Shape::rows(n, 1));
        let args = Args::new().ptr_f32(&numbers).ptr_f32(&status).arg(columns as u32).ptr_f32(square).arg(n as u32);
        self.launch(Launch::per_item("least_squares_start_f32", n, args));
        LeastSquaresState { numbers, status, columns }
    }

    fn least_squares_push(
        &self,
        state: &mut LeastSquaresState<Self>,
        column: &[CudaTensor],
        square: &CudaTensor,
        rtol: f64,
    ) {
        let LeastSquaresState { numbers, status, columns } = state;
        let n = square.shape().n;
        let args = Args::new().ptr_f32(numbers).ptr_f32(status).arg(*columns as u32).arg(Columns::new(column));
        let args = args.arg(column.len() as u32 - 1).ptr_f32(square).arg(rtol as f32).arg(n as u32);
        self.launch(Launch::per_item("least_squares_push_f32", n, args));
    }

    fn least_squares_solution(&self, state: &LeastSquaresState<Self>) -> Vec<CudaTensor> {
        let n = state.status.shape().n;
        let y: Vec<_> = (0..state.columns).map(|_| self.alloc(Shape::rows(n, 1))).collect();
        let args = Args::new().arg(Columns::new(&y)).ptr_f32(&state.numbers).arg(state.columns as u32).arg(n as u32);
        self.launch(Launch::per_item("least_squares_solution_f32", n, args));
        y
    }
}
