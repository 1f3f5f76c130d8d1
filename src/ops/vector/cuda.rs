//! Launches of `kernels/vector.cu`.

use super::Vector;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch, Scalar};
use crate::backend::{Array, Backend, Shape};
use crate::{Result, kernel};

/// Terms of one launch of `vector_linear_combination`.
const TERMS: usize = 4;

/// `Terms` of the kernel.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Terms {
    x: [u64; TERMS],
    a: [Scalar; TERMS],
}

/// Arrays of one launch of `vector_pick_rows`.
const PICKED: usize = 128;

/// As in the kernel.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Picked {
    x: [u64; PICKED],
    y: [u64; PICKED],
    row: [u32; PICKED],
}

/// Panics unless `shared` has one row, or as many as `x`.
fn assert_rows(x: Shape, shared: Shape) {
    assert!(shared.n == 1 || shared.n == x.n, "{shared:?} does not broadcast over the rows of {x:?}");
}

impl Cuda {
    /// y = Σ_k a_k x_k; `y` may be the first of them.
    fn combine(&self, y: &CudaTensor, terms: &[(f64, &CudaTensor)]) {
        let (shape, dtype) = (y.shape(), y.dtype());
        assert!(!terms.is_empty() && terms.len() <= TERMS, "{} terms in one launch", terms.len());
        assert!(terms.iter().all(|term| (term.1.shape(), term.1.dtype()) == (shape, dtype)), "terms that differ");
        let term = |k: usize| terms.get(k).map_or((0.0, 0), |(a, x)| (*a, x.address()));
        let packed =
            Terms { x: std::array::from_fn(|k| term(k).1), a: std::array::from_fn(|k| self.scalar(term(k).0)) };
        let (row, len) = (shape.row(), shape.len());
        let args = Args::new().ptr(y).arg(packed).arg(terms.len() as u32).arg(row as u32).arg(len as u32);
        self.launch(Launch::elements(kernel!("vector_linear_combination", dtype), row, len, dtype, args));
    }
}

impl Vector for Cuda {
    fn linear_combination(&self, terms: &[(f64, &CudaTensor)]) -> CudaTensor {
        let first = terms.first().expect("at least one term").1;
        let mut y = self.alloc_like(first);
        let (head, tail) = terms.split_at(terms.len().min(TERMS));
        self.combine(&y, head);
        if !tail.is_empty() {
            self.linear_update(&mut y, 1.0, tail);
        }
        y
    }

    fn linear_update(&self, y: &mut CudaTensor, a: f64, terms: &[(f64, &CudaTensor)]) {
        let (head, tail) = terms.split_at(terms.len().min(TERMS - 1));
        for (a, terms) in [(a, head)].into_iter().chain(tail.chunks(TERMS - 1).map(|terms| (1.0, terms))) {
            let sum: Vec<_> = [(a, &*y)].into_iter().chain(terms.iter().copied()).collect();
            self.combine(y, &sum);
        }
    }

    fn add_assign(&self, y: &mut CudaTensor, x: &CudaTensor) {
        let shape = y.shape();
        assert_rows(shape, x.shape());
        assert_eq!((shape.row(), y.dtype()), (x.shape().row(), x.dtype()), "{:?} added to {shape:?}", x.shape());
        let args =
            Args::new().ptr(y).ptr(x).arg(x.shape().len() as u32).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements(
            kernel!("vector_add_assign", y.dtype()),
            shape.row(),
            shape.len(),
            y.dtype(),
            args,
        ));
    }

    fn row_axpy(&self, y: &mut CudaTensor, scale: f64, a: &CudaTensor, x: &CudaTensor) {
        let shape = y.shape();
        assert_eq!(shape, x.shape(), "row_axpy");
        assert_rows(shape, a.shape());
        let args = Args::new().ptr_f32(y).arg(self.scalar(scale)).ptr_f32(a).arg(a.shape().n as u32).ptr_f32(x);
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements("vector_row_axpy_f32", shape.row(), shape.len(), Dtype::F32, args));
    }

    fn row_scale(&self, x: &CudaTensor, a: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_rows(shape, a.shape());
        let y = self.alloc(shape);
        let args = Args::new().ptr_f32(&y).ptr_f32(x).ptr_f32(a).arg(a.shape().n as u32);
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements("vector_row_scale_f32", shape.row(), shape.len(), Dtype::F32, args));
        y
    }

    fn row_normalize(&self, x: &CudaTensor, square: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_eq!(square.shape(), Shape::rows(shape.n, 1), "squares of {shape:?}");
        let y = self.alloc(shape);
        let args = Args::new().ptr_f32(&y).ptr_f32(x).ptr_f32(square).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements("vector_row_normalize_f32", shape.row(), shape.len(), Dtype::F32, args));
        y
    }

    fn row_quotient(&self, x: &CudaTensor, y: &CudaTensor, floor: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "row_quotient");
        assert_rows(shape, floor.shape());
        let z = self.alloc(shape);
        let args = Args::new().ptr_f32(&z).ptr_f32(x).ptr_f32(y).ptr_f32(floor).arg(floor.shape().n as u32);
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements("vector_row_quotient_f32", shape.row(), shape.len(), Dtype::F32, args));
        z
    }

    fn multiply(&self, x: &CudaTensor, y: &CudaTensor) -> CudaTensor {
        let (shape, other) = (x.shape(), y.shape());
        assert_rows(shape, other);
        assert!(
            shape.pixels() == other.pixels() && (other.c == 1 || other.c == shape.c),
            "{other:?} does not broadcast over {shape:?}"
        );
        let z = self.alloc_like(x);
        let args = Args::new().ptr(&z).ptr(x).ptr(y).arg(other.n as u32).arg(other.c as u32);
        let args = args.arg(shape.c as u32).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements(kernel!("vector_multiply", x.dtype()), shape.c, shape.len(), x.dtype(), args));
        z
    }

    fn row_dot(&self, x: &CudaTensor, y: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "row_dot");
        let z = self.alloc(Shape::rows(shape.n, 1));
        let args = Args::new().ptr_f32(&z).ptr_f32(x).ptr_f32(y).arg(shape.row() as u32);
        self.launch(Launch::rows("vector_row_dot_f32", shape.n, args));
        z
    }

    fn rows_finite(&self, x: &CudaTensor) -> Result<Vec<bool>> {
        let shape = x.shape();
        let finite = self.alloc(Shape::rows(shape.n, 1));
        let args = Args::new().ptr(&finite).ptr(x).arg(shape.row() as u32);
        self.launch(Launch::rows(kernel!("vector_rows_finite", x.dtype()), shape.n, args));
        Ok(self.to_vec(&finite)?.into_iter().map(|finite| finite == 1.0).collect())
    }

    fn note_nonfinite(&self, first: &mut CudaTensor, step: usize, x: &CudaTensor) {
        let shape = x.shape();
        assert_eq!(first.shape(), Shape::rows(shape.n, 1), "extents of the record");
        let args = Args::new().ptr_f32(first).arg(self.scalar(step as f64)).ptr_f32(x).arg(shape.row() as u32);
        self.launch(Launch::rows("vector_note_nonfinite_f32", shape.n, args));
    }

    fn gather_rows(&self, x: &CudaTensor, index: &[usize]) -> CudaTensor {
        let (from, shape) = (x.shape(), x.shape().with_n(index.len()));
        assert!(index.iter().all(|&i| i < from.n), "rows {index:?} of {from:?}");
        let y = self.alloc_as(shape, x.dtype());
        let index = self.upload_words(&index.iter().map(|&i| i as u32).collect::<Vec<_>>());
        let args = Args::new().ptr(&y).ptr(x).ptr(&index).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(Launch::elements(
            kernel!("vector_gather_rows", x.dtype()),
            shape.row(),
            shape.len(),
            x.dtype(),
            args,
        ));
        y
    }

    fn pick_rows(&self, arrays: &[&CudaTensor], n: usize) -> Vec<CudaTensor> {
        assert!(arrays.iter().all(|x| n < x.shape().n && x.dtype() == Dtype::F32), "row {n} of arrays in f32");
        let rows: Vec<_> = arrays.iter().map(|x| self.alloc(x.shape().with_n(1))).collect();
        for (arrays, rows) in arrays.chunks(PICKED).zip(rows.chunks(PICKED)) {
            let mut picked = Picked { x: [0; PICKED], y: [0; PICKED], row: [0; PICKED] };
            for (i, (x, y)) in arrays.iter().zip(rows).enumerate() {
                (picked.x[i], picked.y[i], picked.row[i]) = (x.address(), y.address(), x.shape().row() as u32);
            }
            let longest = picked.row.into_iter().max().unwrap_or(0) as usize;
            let mut launch = Launch::per_item(
                "vector_pick_rows_f32",
                longest.div_ceil(4),
                Args::new().arg(picked).arg(self.word(n as u32)),
            );
            launch.grid[1] = arrays.len() as u32;
            self.launch(launch);
        }
        rows
    }
}
