//! The Frechet distance of two sets of feature vectors, each taken for a Gaussian.

use crate::data::Samples;
use crate::linalg::{Matrix, symmetric_eigen};
use crate::{Error, Result};

/// d² = |μ - ν|² + tr(S + T - 2 (S^½ T S^½)^½), the squared Frechet distance (2-Wasserstein) of N(μ, S) and N(ν, T).
///
/// With few samples it is too large: N samples each of one N(μ, s I) in D dimensions are about s D (D + 5)/(2 N) apart. Numbers
/// compare only at equal N, and N belongs beside them.
///
/// # Shapes
/// Rows of the same length D in `x` (N, D) and `y` (M, D).
///
/// # Errors
/// As [`FeatureMoments::of`]; a mismatch for rows of different lengths.
///
/// # Reference
/// Dowson and Landau, The Frechet distance between multivariate normal distributions, 1982; Heusel et al., 2017, for images.
pub fn frechet(x: &Samples<f32>, y: &Samples<f32>) -> Result<f64> {
    FeatureMoments::of(x)?.frechet(&FeatureMoments::of(y)?)
}

/// Mean and covariance of feature vectors: what [`frechet`] knows of them.
#[derive(Clone, Debug)]
pub struct FeatureMoments {
    /// N.
    pub count: usize,
    /// (D).
    pub mean: Vec<f64>,
    /// (D, D), unbiased.
    pub covariance: Matrix,
}

impl FeatureMoments {
    /// Those of the rows of `x`, in f64.
    ///
    /// # Errors
    /// A mismatch for fewer than two rows; [`Error::NonFinite`] names the row.
    pub fn of(x: &Samples<f32>) -> Result<Self> {
        let (n, d) = (x.shape.n, x.shape.row());
        if n < 2 {
            return Err(Error::mismatch("Frechet distance", "at least two samples", n));
        }
        if let Some(i) = x.data.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite { place: format!("the features of sample {}", i / d) });
        }
        let mut mean = vec![0.0; d];
        for row in x.data.chunks_exact(d) {
            mean.iter_mut().zip(row).for_each(|(m, v)| *m += f64::from(*v));
        }
        mean.iter_mut().for_each(|m| *m /= n as f64);
        let mut covariance = Matrix::zeros(d, d);
        let mut centred = vec![0.0; d];
        for row in x.data.chunks_exact(d) {
            centred.iter_mut().zip(row.iter().zip(&mean)).for_each(|(c, (v, m))| *c = f64::from(*v) - m);
            for (i, ci) in centred.iter().enumerate() {
                covariance.row_mut(i).iter_mut().zip(&centred).for_each(|(s, cj)| *s += ci * cj / (n - 1) as f64);
            }
        }
        Ok(Self { count: n, mean, covariance })
    }

    /// d² as [`frechet`] defines it.
    ///
    /// # Errors
    /// A mismatch for features of different lengths.
    pub fn frechet(&self, other: &Self) -> Result<f64> {
        let d = self.mean.len();
        if other.mean.len() != d {
            return Err(Error::mismatch("Frechet distance", format!("{d} features"), other.mean.len()));
        }
        let shift: f64 = self.mean.iter().zip(&other.mean).map(|(a, b)| (a - b).powi(2)).sum();
        let trace = |s: &Matrix| (0..d).map(|i| s[(i, i)]).sum::<f64>();
        let squared = shift + trace(&self.covariance) + trace(&other.covariance) - 2.0 * self.overlap(other);
        Ok(squared.max(0.0)) // rounding takes it below for equal sets
    }

    /// tr (S^½ T S^½)^½. With S = Vᵀ Λ V its eigenvalues are those of Λ^½ V T Vᵀ Λ^½, which is symmetric.
    fn overlap(&self, other: &Self) -> f64 {
        let eigen = symmetric_eigen(self.covariance.clone());
        let root: Vec<f64> = eigen.values.iter().map(|v| v.max(0.0).sqrt()).collect();
        let half = Matrix::from_fn(root.len(), root.len(), |i, j| root[i] * eigen.vectors[(i, j)]);
        symmetric_eigen(half.congruence(&other.covariance)).values.iter().map(|v| v.max(0.0).sqrt()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Shape;
    use crate::ops::noise::{Purpose, Stream};

    fn moments(mean: &[f64], covariance: Matrix) -> FeatureMoments {
        FeatureMoments { count: 2, mean: mean.to_vec(), covariance }
    }

    fn random(rows: usize, cols: usize, sample: u32) -> Matrix {
        let values: Vec<f64> = Stream::new(23, Purpose::Test).uniforms(sample).take(rows * cols).collect();
        Matrix::from_fn(rows, cols, |i, j| values[i * cols + j] - 0.5)
    }

    /// A Aᵀ.
    fn square(a: &Matrix) -> Matrix {
        a.times(&a.transpose())
    }

    fn close(found: f64, expected: f64, bound: f64) {
        assert!(found.is_finite() && (found - expected).abs() <= bound, "{found} {expected}");
    }

    #[test]
    fn covariances_that_commute_have_a_closed_form() {
        // S = Q diag(s) Qᵀ, T = Q diag(t) Qᵀ: d² = |μ - ν|² + Σ (√s - √t)²
        let (d, q) = (7, symmetric_eigen(square(&random(7, 7, 0))).vectors.transpose());
        let (s, t): (Vec<f64>, Vec<f64>) = (0..d).map(|i| ((i + 1) as f64, (i * i) as f64 / 4.0)).unzip();
        let of = |v: &[f64]| q.congruence(&Matrix::from_fn(d, d, |i, j| if i == j { v[i] } else { 0.0 }));
        let (mean, other) = (random(1, d, 1), random(1, d, 2));
        let shift: f64 = mean.row(0).iter().zip(other.row(0)).map(|(a, b)| (a - b).powi(2)).sum();
        let expected = shift + s.iter().zip(&t).map(|(s, t)| (s.sqrt() - t.sqrt()).powi(2)).sum::<f64>();
        let found = moments(mean.row(0), of(&s)).frechet(&moments(other.row(0), of(&t))).unwrap();
        // T has the eigenvalue 0: rounding of 1e-15 there is 3e-8 under the root, times √s
        close(found, expected, 1e-6);
    }

    #[test]
    fn two_dimensions_have_a_closed_form() {
        // the eigenvalues of S T are those of S^½ T S^½: tr √ = (tr S T + 2 √det S T)^½
        let (s, t) = (square(&random(2, 2, 3)), square(&random(2, 2, 4)));
        let product = s.times(&t);
        let det = product[(0, 0)] * product[(1, 1)] - product[(0, 1)] * product[(1, 0)];
        let overlap = (product[(0, 0)] + product[(1, 1)] + 2.0 * det.sqrt()).sqrt();
        let expected = 1.0 + s[(0, 0)] + s[(1, 1)] + t[(0, 0)] + t[(1, 1)] - 2.0 * overlap;
        close(moments(&[0.0, 1.0], s).frechet(&moments(&[0.0, 0.0], t)).unwrap(), expected, 1e-12);
    }

    #[test]
    fn it_is_symmetric_zero_on_itself_and_scales() {
        let d = 9;
        let (a, b) = (random(d, d, 5), random(d, d, 6));
        let at = |scale: f64| {
            let of =
                |a: &Matrix, m: f64| moments(&[scale * m; 9], square(a).congruence(&Matrix::scaled_identity(d, 1.0)));
            let scaled = |x: FeatureMoments| FeatureMoments {
                covariance: Matrix::scaled_identity(d, scale).congruence(&x.covariance),
                ..x
            };
            [scaled(of(&a, 0.2)), scaled(of(&b, -0.1))]
        };
        let [x, y] = at(1.0);
        let distance = x.frechet(&y).unwrap();
        assert!(distance > 0.8, "{distance}"); // the means alone are 0.81 apart
        close(y.frechet(&x).unwrap(), distance, 1e-12 * distance);
        close(x.frechet(&x).unwrap(), 0.0, 1e-12);
        let [x, y] = at(3.0);
        close(x.frechet(&y).unwrap(), 9.0 * distance, 1e-11 * distance);
    }

    #[test]
    fn few_samples_seem_apart_by_what_the_docs_say() {
        let (n, d, repeats) = (500, 8, 16);
        let draw = |k: u32| {
            let stream = Stream::new(29, Purpose::Test);
            let rows = (0..n as u32).flat_map(|i| (0..d as u32 / 4).map(move |block| (n as u32 * k + i, block)));
            let x = rows.flat_map(|(sample, block)| stream.normals(sample, block).map(|v| v as f32)).collect();
            Samples::new(Shape::rows(n, d), x)
        };
        let mean =
            (0..repeats).map(|k| frechet(&draw(2 * k), &draw(2 * k + 1)).unwrap()).sum::<f64>() / f64::from(repeats);
        let expected = (d * (d + 5)) as f64 / (2 * n) as f64;
        // the sum of some 50 squares of like size: a relative std of √(2/50) = 0.2 each, 0.05 of the mean of 16; four of those
        assert!(mean.is_finite() && (mean / expected - 1.0).abs() < 0.2, "{mean} {expected}");
    }

    #[test]
    fn moments_are_those_of_the_rows() {
        let x = Samples::new(Shape::rows(3, 2), vec![1.0, 5.0, 2.0, 7.0, 6.0, 0.0]);
        let FeatureMoments { count, mean, covariance } = FeatureMoments::of(&x).unwrap();
        assert_eq!((count, mean), (3, vec![3.0, 4.0]));
        for ((i, j), expected) in [((0, 0), 7.0), ((0, 1), -8.5), ((1, 0), -8.5), ((1, 1), 13.0)] {
            close(covariance[(i, j)], expected, 1e-14);
        }
    }

    #[test]
    fn what_has_no_moments_is_refused() {
        let of = |n: usize, data: &[f32]| FeatureMoments::of(&Samples::new(Shape::rows(n, 2), data.to_vec()));
        assert!(of(1, &[0.0, 1.0]).unwrap_err().to_string().contains("at least two"));
        let error = of(2, &[0.0, 1.0, 2.0, f32::NAN]).unwrap_err().to_string();
        assert!(error.contains("sample 1"), "{error}");
        let three = FeatureMoments::of(&Samples::new(Shape::rows(2, 3), vec![0.0; 6])).unwrap();
        assert!(three.frechet(&of(2, &[0.0; 4]).unwrap()).is_err());
    }
}
