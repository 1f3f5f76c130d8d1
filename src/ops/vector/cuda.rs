//! Launches of `kernels/vector.cu`.

use super::Vector;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch, Scalar};
use crate::backend::{Array, Backend, Shape};
use crate::{Result, kernel};

/// Terms of one launch of `vector_linear_combination_f32`.
const TERMS: usize = 4;

/// `Terms` of the kernel.
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Terms {
    x: [u64; TERMS],
    a: [Scalar; TERMS],
}

/// One thread for every 16 bytes, when rows of `row` elements are made of such groups, else for every element.
fn groups(kernel: &'static str, row: usize, len: usize, dtype: Dtype, args: Args) -> Launch {
    let wide = 16 / dtype.size();
    Launch::per_item(kernel, if row.is_multiple_of(wide) { len / wide } else { len }, args)
}

/// One block for every row of `x`.
fn rows(kernel: &'static str, x: Shape, args: Args) -> Launch {
    Launch::blocks(kernel, x.n, 256, args.arg(x.row() as u32))
}

/// Panics unless `shared` has one row, or as many as `x`.
fn assert_rows(x: Shape, shared: Shape) {
    assert!(shared.n == 1 || shared.n == x.n, "{shared:?} does not broadcast over the rows of {x:?}");
}

impl Cuda {
    /// y = Σ_k a_k x_k; `y` may be the first of them.
    fn combine(&self, y: &CudaTensor, terms: &[(f64, &CudaTensor)]) {
        let shape = y.shape();
        assert!(!terms.is_empty() && terms.len() <= TERMS, "{} terms in one launch", terms.len());
        assert!(terms.iter().all(|term| term.1.shape() == shape && term.1.dtype() == Dtype::F32), "terms that differ");
        let term = |k: usize| terms.get(k).map_or((0.0, 0), |(a, x)| (*a, x.address()));
        let packed =
            Terms { x: std::array::from_fn(|k| term(k).1), a: std::array::from_fn(|k| self.scalar(term(k).0)) };
        let (row, len) = (shape.row(), shape.len());
        let args = Args::new().ptr(y).arg(packed).arg(terms.len() as u32).arg(row as u32).arg(len as u32);
        self.launch(groups("vector_linear_combination_f32", row, len, Dtype::F32, args));
    }
}

impl Vector for Cuda {
    fn linear_combination(&self, terms: &[(f64, &CudaTensor)]) -> CudaTensor {
        let first = terms.first().expect("at least one term").1;
        let y = self.alloc(first.shape());
        let (head, tail) = terms.split_at(terms.len().min(TERMS));
        self.combine(&y, head);
        for terms in tail.chunks(TERMS - 1) {
            let sum: Vec<_> = [(1.0, &y)].into_iter().chain(terms.iter().copied()).collect();
            self.combine(&y, &sum);
        }
        y
    }

    fn add_assign(&self, y: &mut CudaTensor, x: &CudaTensor) {
        let shape = y.shape();
        assert_rows(shape, x.shape());
        assert_eq!((shape.row(), y.dtype()), (x.shape().row(), x.dtype()), "{:?} added to {shape:?}", x.shape());
        let args =
            Args::new().ptr(y).ptr(x).arg(x.shape().len() as u32).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(groups(kernel!("vector_add_assign", y.dtype()), shape.row(), shape.len(), y.dtype(), args));
    }

    fn row_axpy(&self, y: &mut CudaTensor, scale: f64, a: &CudaTensor, x: &CudaTensor) {
        let shape = y.shape();
        assert_eq!(shape, x.shape(), "row_axpy");
        assert_rows(shape, a.shape());
        let args = Args::new().ptr(y).arg(self.scalar(scale)).ptr(a).arg(a.shape().n as u32).ptr(x);
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(groups("vector_row_axpy_f32", shape.row(), shape.len(), Dtype::F32, args));
    }

    fn row_scale(&self, x: &CudaTensor, a: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_rows(shape, a.shape());
        let y = self.alloc(shape);
        let args = Args::new().ptr(&y).ptr(x).ptr(a).arg(a.shape().n as u32);
        let args = args.arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(groups("vector_row_scale_f32", shape.row(), shape.len(), Dtype::F32, args));
        y
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
        self.launch(groups(kernel!("vector_multiply", x.dtype()), shape.c, shape.len(), x.dtype(), args));
        z
    }

    fn row_dot(&self, x: &CudaTensor, y: &CudaTensor) -> CudaTensor {
        let shape = x.shape();
        assert_eq!(shape, y.shape(), "row_dot");
        let z = self.alloc(Shape::rows(shape.n, 1));
        self.launch(rows("vector_row_dot_f32", shape, Args::new().ptr(&z).ptr(x).ptr(y)));
        z
    }

    fn rows_finite(&self, x: &CudaTensor) -> Result<Vec<bool>> {
        let finite = self.alloc(Shape::rows(x.shape().n, 1));
        self.launch(rows(kernel!("vector_rows_finite", x.dtype()), x.shape(), Args::new().ptr(&finite).ptr(x)));
        Ok(self.to_vec(&finite)?.into_iter().map(|finite| finite == 1.0).collect())
    }

    fn gather_rows(&self, x: &CudaTensor, index: &[usize]) -> CudaTensor {
        let (from, shape) = (x.shape(), x.shape().with_n(index.len()));
        assert!(index.iter().all(|&i| i < from.n), "rows {index:?} of {from:?}");
        let y = self.alloc_as(shape, x.dtype());
        let index = self.upload_words(&index.iter().map(|&i| i as u32).collect::<Vec<_>>());
        let args = Args::new().ptr(&y).ptr(x).ptr(&index).arg(shape.row() as u32).arg(shape.len() as u32);
        self.launch(groups(kernel!("vector_gather_rows", x.dtype()), shape.row(), shape.len(), x.dtype(), args));
        y
    }
}
