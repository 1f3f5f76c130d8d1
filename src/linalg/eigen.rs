//! Eigenvalues and eigenvectors of a symmetric matrix.

use super::Matrix;

/// A = Vᵀ Λ V.
#[derive(Clone, Debug)]
pub struct Eigen {
    /// λ, from the largest down.
    pub values: Vec<f64>,
    /// The eigenvectors, of unit length, one in each row, in the order of the values.
    pub vectors: Matrix,
}

/// Jacobi rotations converge quadratically: six to eight sweeps are usual.
const SWEEPS: usize = 40;

/// All eigenpairs of the symmetric matrix `a`, by cyclic Jacobi rotations: 2 n³ multiplications and additions per sweep, errors of a
/// few roundings of the largest eigenvalue.
///
/// # Reference
/// Golub and Van Loan, *Matrix Computations*, 4th edition, section 8.5.
pub fn symmetric_eigen(mut a: Matrix) -> Eigen {
    assert_eq!(a.rows, a.cols, "eigenvalues of a square matrix");
    let n = a.rows;
    let mut vectors = Matrix::scaled_identity(n, 1.0);
    let negligible = f64::EPSILON * a.squared_norm().sqrt() / n.max(1) as f64;
    for _ in 0..SWEEPS {
        let mut rotated = false;
        for p in 0..n {
            for q in p + 1..n {
                if a[(p, q)].abs() > negligible {
                    rotate(&mut a, &mut vectors, p, q);
                    rotated = true;
                }
            }
        }
        if !rotated {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[(j, j)].total_cmp(&a[(i, i)]));
    Eigen {
        values: order.iter().map(|&i| a[(i, i)]).collect(),
        vectors: Matrix::from_fn(n, n, |i, j| vectors[(order[i], j)]),
    }
}

/// Rotates rows and columns p and q of `a` so that element (p, q) becomes 0, and the rows of `vectors` with them.
fn rotate(a: &mut Matrix, vectors: &mut Matrix, p: usize, q: usize) {
    let theta = (a[(q, q)] - a[(p, p)]) / (2.0 * a[(p, q)]);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0)); // the smaller root: an angle of at most π/4
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..a.rows {
        let (x, y) = (a[(k, p)], a[(k, q)]);
        (a[(k, p)], a[(k, q)]) = (c * x - s * y, s * x + c * y);
    }
    for matrix in [a, vectors] {
        let (above, below) = matrix.data.split_at_mut(q * matrix.cols);
        let (row_p, row_q) = (&mut above[p * matrix.cols..][..matrix.cols], &mut below[..matrix.cols]);
        for (x, y) in row_p.iter_mut().zip(row_q) {
            (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random;

    /// ‖V A Vᵀ - Λ‖ and ‖V Vᵀ - I‖ are a few roundings per sum of n = 23 terms.
    fn assert_diagonalises(a: &Matrix, eigen: &Eigen, scale: f64) {
        let (product, gram) = (eigen.vectors.congruence(a), eigen.vectors.times_transpose(&eigen.vectors));
        for i in 0..a.rows() {
            for j in 0..a.rows() {
                let (value, one) = if i == j { (eigen.values[i], 1.0) } else { (0.0, 0.0) };
                assert!((product[(i, j)] - value).abs() <= 1e-14 * scale, "{i} {j}: {}", product[(i, j)]);
                assert!((gram[(i, j)] - one).abs() <= 1e-14, "{i} {j}: {}", gram[(i, j)]);
            }
        }
        assert!(eigen.values.windows(2).all(|pair| pair[0] >= pair[1]), "{:?}", eigen.values);
    }

    #[test]
    fn eigenvectors_diagonalise() {
        let factor = random(23, 23, 0);
        let a = factor.clone().plus(&factor.transpose()); // indefinite
        assert_diagonalises(&a, &symmetric_eigen(a.clone()), 4.0);
        let low_rank = random(23, 4, 1);
        let a = low_rank.times_transpose(&low_rank); // 19 eigenvalues are 0
        let eigen = symmetric_eigen(a.clone());
        assert_diagonalises(&a, &eigen, 4.0);
        assert!(eigen.values[4..].iter().all(|v| v.abs() < 1e-14) && eigen.values[3] > 0.1, "{:?}", eigen.values);
    }

    #[test]
    fn degenerate_matrices() {
        for a in [Matrix::zeros(3, 3), Matrix::scaled_identity(3, 1e-30), Matrix::zeros(0, 0)] {
            let eigen = symmetric_eigen(a.clone());
            assert!(eigen.values.iter().enumerate().all(|(i, v)| *v == a[(i, i)]), "{eigen:?}");
        }
    }
}
