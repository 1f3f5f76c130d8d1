//! Arrays of samples in host memory.

use crate::backend::Shape;

/// One row per sample, or one row that stands for all of them.
#[derive(Clone, PartialEq, Debug)]
pub struct Samples<T> {
    /// (N, H, W, C), or (1, H, W, C) where one row stands for all.
    pub shape: Shape,
    /// Row-major elements.
    pub data: Vec<T>,
}

impl<T: Copy> Samples<T> {
    /// An array of `shape`.
    ///
    /// # Panics
    /// When the shape does not have as many elements as there are.
    pub fn new(shape: Shape, data: Vec<T>) -> Self {
        assert_eq!(shape.len(), data.len(), "{} elements as {shape:?}", data.len());
        Self { shape, data }
    }
    /// The elements of sample `n`.
    pub fn row(&self, n: usize) -> &[T] {
        let (n, d) = (if self.shape.n == 1 { 0 } else { n }, self.shape.row());
        &self.data[n * d..(n + 1) * d]
    }
    /// The first `n` samples.
    pub fn first(&self, n: usize) -> Self {
        Self { shape: self.shape.with_n(n), data: self.data[..n * self.shape.row()].to_vec() }
    }
    /// The rows of samples `index`, in that order.
    pub fn gather(&self, index: &[usize]) -> Self {
        let data = index.iter().flat_map(|n| self.row(*n)).copied().collect();
        Self { shape: self.shape.with_n(index.len()), data }
    }
    /// The rows of samples `index`, or the one row that stands for all.
    pub fn gather_or_share(&self, index: &[usize]) -> Self {
        if self.shape.n == 1 { self.clone() } else { self.gather(index) }
    }
}
