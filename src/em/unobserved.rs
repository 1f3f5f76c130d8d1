//! How much a prior varies where little was observed: every lap's discretisation takes a little of it.

use crate::backend::Shape;
use crate::data::{Measured, Observations, Samples};
use crate::linalg::{Matrix, symmetric_eigen};
use crate::ops::fourier::Hartley;

/// The larger D, the more the eigenvectors of a dense operator cost: above, they are not looked for.
const LARGEST: usize = 512;

/// The K = ⌈D/10⌉ orthonormal directions that N observations say least about: the eigenvectors of H = (1/N) Σ_n A_nᵀ A_n with the
/// smallest eigenvalues. For pixel masks H is diagonal, and they are the elements of the pixels that were observed least often; so it is
/// for k-space in the basis of [`Hartley`].
pub enum Directions {
    /// Elements of x.
    Elements(Vec<usize>),
    /// Elements of the Hartley transform of x.
    Frequencies(Hartley, Vec<usize>),
    /// (K, D), one in each row.
    Vectors(Matrix),
}

impl Directions {
    /// Those of `observations`; `None` for dense operators on more than 512 elements, and for blur and downsampling.
    pub fn least_observed(observations: &Observations) -> Option<Self> {
        let n = observations.len();
        match observations.measured() {
            Measured::Mask(mask) => {
                let mut counts = vec![0.0; mask.shape.row()];
                for sample in 0..n {
                    counts.iter_mut().zip(mask.row(sample)).for_each(|(count, m)| *count += f64::from(*m));
                }
                Some(Self::Elements(rarest(&counts, observations.y().shape.c)))
            }
            Measured::Fourier(mask) => {
                let Shape { h, w, .. } = observations.y().shape;
                let mut counts = vec![0.0; w];
                for sample in 0..n {
                    let eigenvalues = Hartley::eigenvalues(mask.row(sample));
                    counts.iter_mut().zip(eigenvalues).for_each(|(count, s)| *count += s);
                }
                Some(Self::Frequencies(Hartley::new(h, w), rarest(&counts, h)))
            }
            Measured::Dense(a) if a.shape.c <= LARGEST => {
                let d = a.shape.c;
                let mut h = Matrix::zeros(d, d);
                for direction in (0..n).flat_map(|sample| a.row(sample).chunks_exact(d)) {
                    for (i, a) in direction.iter().enumerate() {
                        let row = h.row_mut(i).iter_mut().zip(direction);
                        row.for_each(|(h, b)| *h += f64::from(*a) * f64::from(*b) / n as f64);
                    }
                }
                let (eigen, k) = (symmetric_eigen(h), d.div_ceil(10));
                Some(Self::Vectors(Matrix::from_fn(k, d, |i, j| eigen.vectors[(d - 1 - i, j)])))
            }
            Measured::Dense(_) | Measured::Blur(_) | Measured::Downsample(_) => None,
        }
    }

    /// (1/K) Σ_k Var[<e_k, x>] over the rows of `x`, unbiased; NaN below two of them.
    pub fn variance(&self, x: &Samples<f32>) -> f64 {
        let rows = || x.data.chunks_exact(x.shape.row());
        let sum: f64 = match self {
            Self::Elements(elements) => {
                elements.iter().map(|&i| variance(rows().map(|x| f64::from(x[i])))).sum::<f64>() / elements.len() as f64
            }
            Self::Frequencies(hartley, elements) => {
                let transform = |x: &[f32]| {
                    let c = hartley.forward(&x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>());
                    elements.iter().map(|&i| c[i]).collect::<Vec<_>>()
                };
                let c: Vec<Vec<f64>> = rows().map(transform).collect();
                (0..elements.len()).map(|k| variance(c.iter().map(|c| c[k]))).sum::<f64>() / elements.len() as f64
            }
            Self::Vectors(e) => {
                let along = |k: usize| variance(rows().map(|x| inner(e.row(k), x)));
                (0..e.rows()).map(along).sum::<f64>() / e.rows() as f64
            }
        };
        sum
    }
}

/// A tenth of the elements, `c` for each of the groups that `counts` are of, from the groups with the smallest counts.
fn rarest(counts: &[f64], c: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..counts.len()).collect();
    order.sort_by(|&a, &b| counts[a].total_cmp(&counts[b]));
    let elements = order.into_iter().flat_map(|group| group * c..(group + 1) * c);
    elements.take((counts.len() * c).div_ceil(10)).collect()
}

/// The mean over all elements of their variances.
pub fn total_variance(x: &Samples<f32>) -> f64 {
    Directions::Elements((0..x.shape.row()).collect()).variance(x)
}

fn inner(e: &[f64], x: &[f32]) -> f64 {
    e.iter().zip(x).map(|(e, x)| e * f64::from(*x)).sum()
}

fn variance(x: impl Iterator<Item = f64> + Clone) -> f64 {
    let n = x.clone().count() as f64;
    let mean = x.clone().sum::<f64>() / n;
    x.map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn observations(y: Shape, measured: Measured) -> Observations {
        let y = Samples::new(y, vec![0.0; y.len()]);
        Observations::new(Path::new("test.npz"), y, vec![1.0], measured).unwrap()
    }

    #[test]
    fn of_masks_the_pixels_least_often_seen() {
        // 10 pixels of 2 channels: pixel 7 is never seen, so that its two elements are a tenth of the 20
        let mask = Samples::new(Shape::new(2, 1, 10, 1), (0..20).map(|i| u8::from(i % 10 != 7)).collect());
        let found = Directions::least_observed(&observations(Shape::new(2, 1, 10, 2), Measured::Mask(mask)));
        let Some(Directions::Elements(elements)) = found else { panic!("a mask has elements") };
        assert_eq!(elements, [14, 15]);
        // element 14 is 0 and 3, variance 4.5; element 15 is 1 and 1
        let mut x = vec![9.0f32; 40];
        (x[14], x[15], x[34], x[35]) = (0.0, 1.0, 3.0, 1.0);
        let variance = Directions::Elements(elements).variance(&Samples::new(Shape::new(2, 1, 10, 2), x));
        assert!((variance - 2.25).abs() < 1e-12, "{variance}"); // sums of a few small integers
    }

    #[test]
    fn of_matrices_the_direction_least_measured() {
        // (1, 1)/√2 is measured twice, (1, -1)/√2 once
        let (r, a) = (std::f32::consts::FRAC_1_SQRT_2, [1.0f32, 1.0, 1.0, 1.0, 1.0, -1.0]);
        let a = Samples::new(Shape::new(3, 1, 1, 2), a.iter().map(|a| a * r).collect());
        let found = Directions::least_observed(&observations(Shape::rows(3, 1), Measured::Dense(a)));
        let x = Samples::new(Shape::rows(2, 2), vec![1.0, -1.0, -1.0, 1.0]); // ±√2 along (1, -1)/√2
        let variance = found.unwrap().variance(&x);
        assert!((variance - 4.0).abs() < 1e-6, "{variance}"); // r is rounded to f32
    }
}
