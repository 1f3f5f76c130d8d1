//! The leading eigenvectors of a matrix that is only known by its products.

use super::eigen::{Eigen, symmetric_eigen};
use super::{Matrix, dot};
use crate::Result;

/// The eigenpairs of a symmetric positive semidefinite D x D matrix S in a subspace that is multiplied by S until the sum
/// of its leading `rank` Ritz values changes by less than `tolerance` of it, at most `passes` times.
///
/// `apply` gives V S for V (L, D), with a vector in each row; `start` (L, D) spans the first subspace. Every Ritz value
/// grows in every pass: a subspace that holds vectors on which S is large never yields a smaller sum. With L = D the first
/// pass is exact.
///
/// # Errors
/// Those of `apply`.
///
/// # Reference
/// Halko, Martinsson and Tropp, *Finding structure with randomness*, SIAM Review 2011, algorithm 4.4.
pub fn leading_eigenpairs(
    mut apply: impl FnMut(&Matrix) -> Result<Matrix>,
    start: Matrix,
    rank: usize,
    tolerance: f64,
    passes: usize,
) -> Result<Eigen> {
    let whole = start.rows() == start.cols();
    let mut basis = start;
    orthonormalise(&mut basis);
    let mut image = apply(&basis)?;
    let mut ritz = symmetric_eigen(image.times_transpose(&basis));
    for _ in 1..passes {
        if whole {
            break;
        }
        let before: f64 = ritz.values.iter().take(rank).sum();
        basis = image;
        orthonormalise(&mut basis);
        image = apply(&basis)?;
        ritz = symmetric_eigen(image.times_transpose(&basis));
        let after: f64 = ritz.values.iter().take(rank).sum();
        if after - before <= tolerance * after {
            break;
        }
    }
    Ok(Eigen { vectors: ritz.vectors.times(&basis), values: ritz.values })
}

/// Makes the rows of `v` orthonormal; one that depends on those above it becomes 0.
pub fn orthonormalise(v: &mut Matrix) {
    let cols = v.cols;
    for i in 0..v.rows {
        let (above, row) = v.data.split_at_mut(i * cols);
        let row = &mut row[..cols];
        let norm = dot(row, row).sqrt();
        // twice is enough (Giraud et al., 2005): the second time removes what the first left by cancellation
        for _ in 0..2 {
            for q in above.chunks_exact(cols) {
                let along = dot(q, row);
                row.iter_mut().zip(q).for_each(|(x, q)| *x -= along * q);
            }
        }
        let left = dot(row, row).sqrt();
        let scale = if left > 1e-13 * norm { 1.0 / left } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= scale);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linalg::random;

    #[test]
    fn leading_pairs_are_those_of_all() {
        let factor = random(40, 40, 0);
        let s = Matrix::from_fn(40, 40, |i, j| 0.8f64.powi(j as i32) * factor[(i, j)]);
        let s = s.times_transpose(&s);
        let all = symmetric_eigen(s.clone());
        let some = leading_eigenpairs(|v| Ok(v.times(&s)), random(10, 40, 1), 4, 1e-15, 100).unwrap();
        for r in 0..4 {
            // the sum's last change, 1e-15 of it, bounds what is left up to the gap of the spectrum, about 0.2
            assert!((some.values[r] / all.values[r] - 1.0).abs() < 1e-13, "{} {}", some.values[r], all.values[r]);
            let cosine = dot(some.vectors.row(r), all.vectors.row(r)).abs();
            assert!((cosine - 1.0).abs() < 1e-12, "{r}: {cosine}");
        }
        let exact = leading_eigenpairs(|v| Ok(v.times(&s)), random(40, 40, 2), 4, 0.0, 100).unwrap();
        assert!(exact.values.iter().zip(&all.values).all(|(a, b)| (a - b).abs() < 1e-14 * all.values[0]));
    }

    #[test]
    fn ritz_values_never_fall() {
        let factor = random(30, 30, 3);
        let s = factor.times_transpose(&factor);
        let mut before = vec![0.0; 5];
        for passes in 1..12 {
            let ritz = leading_eigenpairs(|v| Ok(v.times(&s)), random(5, 30, 4), 5, -1.0, passes).unwrap();
            assert!(ritz.values.iter().zip(&before).all(|(after, before)| *after > before - 1e-14), "{passes}");
            before = ritz.values;
        }
    }

    #[test]
    fn dependent_rows_vanish() {
        let mut v = random(4, 6, 5);
        let sum: Vec<f64> = (0..6).map(|j| v[(0, j)] - 3.0 * v[(1, j)]).collect();
        v.row_mut(2).copy_from_slice(&sum);
        orthonormalise(&mut v);
        let gram = v.times_transpose(&v);
        for i in 0..4 {
            for j in 0..4 {
                let expected = if i == j && i != 2 { 1.0 } else { 0.0 };
                assert!((gram[(i, j)] - expected).abs() < 1e-15, "{i} {j}: {}", gram[(i, j)]);
            }
        }
    }
}
