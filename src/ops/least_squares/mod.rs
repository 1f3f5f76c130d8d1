//! The small least squares problems of GMRES (Saad and Schultz, 1986), one per sample, column by column.
//!
//! min ‖β e_1 - H y‖ for a Hessenberg matrix H, which Givens rotations bring to triangular form R as its columns come.

mod cuda;
mod host;

use crate::backend::Backend;

/// Columns at most: GMRES keeps as many basis vectors.
pub const COLUMNS: usize = 64;

/// The problems of a batch.
pub struct LeastSquaresState<B: Backend> {
    /// (N, 1, 1, [`Layout::len`]) the rows of a sample's numbers.
    pub numbers: B::Tensor,
    /// (N, 1, 1, 1) as in [`super::cg`].
    pub status: B::Tensor,
    /// k, the columns to come.
    pub columns: usize,
}

/// Where the numbers of a sample with k columns lie: R, column by column, k each; cosines; sines; the rotated right-hand side,
/// whose last element is the residual's norm; β; how many columns there are.
#[derive(Clone, Copy)]
struct Layout {
    cos: usize,
    sin: usize,
    rhs: usize,
    beta: usize,
    count: usize,
}

impl Layout {
    fn new(k: usize) -> Self {
        let cos = k * k;
        let rhs = cos + 2 * k;
        Self { cos, sin: cos + k, rhs, beta: rhs + k + 1, count: rhs + k + 2 }
    }
    fn len(self) -> usize {
        self.count + 1
    }
}

/// Nobody waits for the device.
pub trait LeastSquares: Backend {
    /// Problems of `columns` columns, with β² = `square` (N, 1, 1, 1): running, converged where β = 0, broken down where it is
    /// not finite.
    fn least_squares_start(&self, square: &Self::Tensor, columns: usize) -> LeastSquaresState<Self>;
    /// For each running sample, the next column of H, j: its elements 0 .. j, (N, 1, 1, 1) each, and the square of the last. The
    /// sample has converged if the residual's norm is at most rtol β; a column that is not finite or makes R singular is not
    /// taken, and the sample stops as a breakdown.
    fn least_squares_push(
        &self,
        state: &mut LeastSquaresState<Self>,
        column: &[Self::Tensor],
        square: &Self::Tensor,
        rtol: f64,
    );
    /// y_0 .. y_(k-1), (N, 1, 1, 1) each; 0 for columns that a sample has not.
    fn least_squares_solution(&self, state: &LeastSquaresState<Self>) -> Vec<Self::Tensor>;
}
