//! EM in the factors of a masked image: the fast update.

use super::mask::MaskSystem;
use crate::Result;
use crate::data::{Measured, Observations, Samples};
use crate::diffusion::Gaussian;
use crate::linalg::{Cholesky, Matrix, View, dot};
use rayon::prelude::*;

/// Observations whose moments are in memory at a time.
const CHUNK: usize = 256;
/// Pixels whose sums one task adds up.
const BLOCK: usize = 32;
/// Numbers of all sums at most, 2 GiB.
const LARGEST: usize = 1 << 28;

/// Masked images with one noise for all: what [`Masked::update`] is for.
pub(super) struct Masked<'a> {
    y: &'a Samples<f32>,
    mask: &'a Samples<u8>,
    sigma_y: f64,
    count: usize,
}

/// x_i = u_i z + μ_i of the elements i of one pixel by least squares on z̃ = (z, 1), summed over the observations of the pixel.
struct Sums {
    gram: Matrix,  // (pixels, T): Σ E[z̃ z̃ᵀ], the upper triangle
    cross: Matrix, // (D, R + 1): Σ y_i E[z̃]
    /// Σ y_i² over everything that was observed, and the number of terms.
    squares: f64,
    terms: usize,
    /// (1, T): Σ E[z̃ z̃ᵀ] over all observations.
    all: Vec<f64>,
}

impl Sums {
    /// Writes u_i and the shift of μ_i of all elements of a pixel to `rows` (C, R + 1), and gives Σ (y_i - u_i z - ..)² less Σ y_i².
    fn regress(&self, gaussian: &Gaussian, pixel: usize, rows: &mut [f64]) -> f64 {
        let rank = gaussian.factor().cols();
        let channels = rows.len() / (rank + 1);
        let gram = unpack(self.gram.row(pixel), rank + 1);
        let cholesky = Cholesky::new(gram.clone()).ok(); // none where a pixel was never observed
        let elements = rows.chunks_exact_mut(rank + 1).zip(pixel * channels..);
        let left = elements.map(|(u, i)| {
            let cross = self.cross.row(i);
            let loss = |u: &[f64]| dot(u, &gram.apply(u)) - 2.0 * dot(u, cross);
            u[..rank].copy_from_slice(gaussian.factor().row(i));
            let before = loss(u);
            let Some(cholesky) = &cholesky else { return before };
            let mut best = cross.to_vec();
            cholesky.solve(&mut best);
            let after = loss(&best);
            if after < before {
                // else the solve has drowned in rounding: hardly any observation has this pixel
                u.copy_from_slice(&best);
            }
            after.min(before)
        });
        left.sum()
    }
}

impl<'a> Masked<'a> {
    /// The first `count` of `observations`, if the update is for them and for a `gaussian` with `rank` columns that are not 0.
    pub fn of(observations: &'a Observations, count: usize, gaussian: &Gaussian, rank: usize) -> Option<Self> {
        let (Measured::Mask(mask), [sigma_y]) = (observations.measured(), observations.noise()) else { return None };
        let factor = gaussian.factor();
        let moves = |r: usize| (0..factor.rows()).any(|i| factor[(i, r)] != 0.0);
        let fits = triangle(rank + 1) * mask.shape.pixels() <= LARGEST;
        let applies = fits && factor.cols() == rank && rank < factor.rows() && (0..rank).all(moves);
        applies.then_some(Self { y: observations.y(), mask, sigma_y: *sigma_y, count })
    }

    /// One EM iteration with the factors z as what is hidden, x = μ + U z + ε, ε ~ N(0, δ I): of the observed elements, whose
    /// noise is N(0, (δ + σ_y²) I), the M step is a regression on z of each element alone, and δ the mean of what it leaves.
    ///
    /// What was not observed is not filled in, unlike in [`super::moments::update`], where δ can only fall to the share of deleted
    /// pixels in an iteration. The law of z is re-estimated and absorbed into U and μ (parameter expansion), which neither
    /// changes the model nor loses likelihood. U = 0 is a fixed point: it cannot be the start.
    ///
    /// # Reference
    /// Rubin and Thayer, *EM algorithms for ML factor analysis*, Psychometrika 1982; Liu, Rubin and Wu, *Parameter expansion to
    /// accelerate EM: the PX-EM algorithm*, Biometrika 1998.
    pub fn update(&self, gaussian: &Gaussian, floor: f64) -> Result<Gaussian> {
        let (d, rank) = (gaussian.mean().len(), gaussian.factor().cols());
        let sums = self.sums(gaussian);
        let mut regression = Matrix::zeros(d, rank + 1); // u_i, and the shift of μ_i
        let rows = regression.as_mut_slice().par_chunks_mut(self.y.shape.c * (rank + 1)).enumerate();
        let left: Vec<f64> = rows.map(|(pixel, rows)| sums.regress(gaussian, pixel, rows)).collect();
        let noise = (sums.squares + left.iter().sum::<f64>()) / sums.terms.max(1) as f64;
        let delta = (noise - self.sigma_y * self.sigma_y).max(floor);
        self.absorb(gaussian, &regression, &sums, delta)
    }

    /// The Gaussian of x = μ + shift + U z + ε for z of the mean and covariance that it has over all observations.
    fn absorb(&self, gaussian: &Gaussian, regression: &Matrix, sums: &Sums, delta: f64) -> Result<Gaussian> {
        let rank = gaussian.factor().cols();
        let second = unpack(&sums.all, rank + 1);
        let n = self.count as f64;
        let mean: Vec<f64> = (0..rank).map(|r| second[(r, rank)] / n).collect();
        let cov = Matrix::from_fn(rank, rank, |r, s| second[(r, s)] / n - mean[r] * mean[s]);
        let factor = Matrix::from_fn(regression.rows(), rank, |i, r| regression[(i, r)]);
        let moved = factor.apply(&mean).into_iter().zip(gaussian.mean());
        let mean = moved.enumerate().map(|(i, (uz, mean))| mean + regression[(i, rank)] + uz).collect();
        let factor = factor.times(&Cholesky::new(cov)?.into_lower());
        Gaussian::new(mean, vec![delta; regression.rows()], factor.as_slice().to_vec())
    }

    fn sums(&self, gaussian: &Gaussian) -> Sums {
        let (d, rank, pixels) = (gaussian.mean().len(), gaussian.factor().cols(), self.mask.shape.pixels());
        let width = triangle(rank + 1);
        let (gram, cross) = (Matrix::zeros(pixels, width), Matrix::zeros(d, rank + 1));
        let mut sums = Sums { gram, cross, squares: 0.0, terms: 0, all: vec![0.0; width] };
        for first in (0..self.count).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(self.count);
            let moments: Vec<Posterior> = chunk.clone().into_par_iter().map(|n| self.posterior(gaussian, n)).collect();
            let second = Matrix::from_fn(chunk.len(), width, |k, t| moments[k].second[t]);
            let first_moments = Matrix::from_fn(chunk.len(), rank + 1, |k, r| moments[k].first[r]);
            // an element's and a pixel's numbers side by side, 0 where not observed
            let mask = Matrix::from_fn(pixels, chunk.len(), |p, k| f64::from(self.mask.row(first + k)[p]));
            let y = Matrix::from_fn(d, chunk.len(), |i, k| moments[k].y[i]);
            add_blocks(&mut sums.gram, &mask, &second);
            add_blocks(&mut sums.cross, &y, &first_moments);
            for posterior in &moments {
                sums.squares += dot(&posterior.y, &posterior.y);
                sums.terms += posterior.observed;
                sums.all.iter_mut().zip(&posterior.second).for_each(|(sum, x)| *sum += x);
            }
        }
        sums
    }

    /// Of observation `n`.
    fn posterior(&self, gaussian: &Gaussian, n: usize) -> Posterior {
        let (rank, channels) = (gaussian.factor().cols(), self.y.shape.c);
        let (y, mask) = (self.y.row(n), self.mask.row(n));
        let centred = |i: usize| f64::from(mask[i / channels]) * (f64::from(y[i]) - gaussian.mean()[i]);
        let y: Vec<f64> = (0..y.len()).map(centred).collect();
        let system = MaskSystem::new(gaussian, mask, channels, self.sigma_y);
        let (mut first, cov) = system.factors(&y);
        first.push(1.0);
        let second = (0..=rank).flat_map(|r| {
            let (first, cov) = (&first, &cov);
            (r..=rank).map(move |s| first[r] * first[s] + if s < rank { cov[(r, s)] } else { 0.0 })
        });
        let second = second.collect();
        let observed = mask.iter().filter(|m| **m == 1).count() * channels;
        Posterior { y, observed, second, first }
    }
}

/// What one observation adds to the sums.
struct Posterior {
    /// (D): y - μ, 0 where not observed.
    y: Vec<f64>,
    observed: usize,
    /// E[z̃], R + 1 values.
    first: Vec<f64>,
    /// E[z̃ z̃ᵀ], the upper triangle.
    second: Vec<f64>,
}

/// Elements of the upper triangle of an n x n matrix.
fn triangle(n: usize) -> usize {
    n * (n + 1) / 2
}

/// The symmetric n x n matrix of an upper triangle.
fn unpack(upper: &[f64], n: usize) -> Matrix {
    let start = |r: usize| r * n - r * r.saturating_sub(1) / 2 - r; // of row r, at its column 0
    Matrix::from_fn(n, n, |r, s| upper[start(r.min(s)) + r.max(s)])
}

/// `sums` += A B, in parallel over rows of A.
fn add_blocks(sums: &mut Matrix, a: &Matrix, b: &Matrix) {
    let width = b.cols();
    sums.as_mut_slice().par_chunks_mut(BLOCK * width).enumerate().for_each(|(block, out)| {
        let rows = block * BLOCK..block * BLOCK + out.len() / width;
        let mut sum = Matrix::zeros(rows.len(), width);
        sum.add_product(1.0, View::rows_of(a, rows), View::of(b));
        out.iter_mut().zip(sum.as_slice()).for_each(|(out, sum)| *out += sum);
    });
}
