//! EM in the factors of masked images, or masked k-space: the fast update.

use super::mask::MaskSystem;
use super::problem::Problem;
use crate::Result;
use crate::diffusion::Gaussian;
use crate::linalg::{Cholesky, Matrix, View, dot};
use rayon::prelude::*;

/// Observations whose moments are in memory at a time.
const CHUNK: usize = 256;
/// Pixels whose sums one task adds up.
const BLOCK: usize = 32;
/// Numbers of all sums at most, 2 GiB.
const LARGEST: usize = 1 << 28;

/// Masks with one σ_y for all: what [`Masked::update`] is for.
pub(super) struct Masked<'a> {
    problem: &'a Problem<'a>,
    sigma_y: f64,
    count: usize,
}

/// Variances of the noise at most, 1 to so many times σ_y²: [`Problem::mask`].
const LEVELS: usize = 2;

/// x_i = u_i z + μ_i of the elements i of one pixel by least squares on z̃ = (z, 1), summed over the observations of the pixel.
struct Sums {
    /// Over what has noise of variance σ_y², 2 σ_y², ..
    levels: Vec<Level>,
    /// (1, T): Σ E[z̃ z̃ᵀ] over all observations.
    all: Vec<f64>,
}

/// What has noise of one variance.
struct Level {
    gram: Matrix,  // (pixels, T): Σ E[z̃ z̃ᵀ], the upper triangle
    cross: Matrix, // (D, R + 1): Σ y_i E[z̃]
    /// Σ y_i², and the number of terms.
    squares: f64,
    terms: usize,
}

impl Sums {
    /// Writes u_i and the shift of μ_i of all elements of a pixel to `rows` (C, R + 1), and gives Σ (y_i - u_i z - ..)² less Σ y_i² of
    /// every level, whose terms have the weight `weights`.
    fn regress(&self, gaussian: &Gaussian, weights: &[f64], pixel: usize, rows: &mut [f64]) -> [f64; LEVELS] {
        let rank = gaussian.factor().cols();
        let channels = rows.len() / (rank + 1);
        let grams: Vec<Matrix> = self.levels.iter().map(|level| unpack(level.gram.row(pixel), rank + 1)).collect();
        let weighted = |r, s| grams.iter().zip(weights).map(|(gram, weight)| weight * gram[(r, s)]).sum();
        let cholesky = Cholesky::new(Matrix::from_fn(rank + 1, rank + 1, weighted)).ok(); // none where never observed
        let mut left = [0.0; LEVELS];
        for (u, i) in rows.chunks_exact_mut(rank + 1).zip(pixel * channels..) {
            let loss = |u: &[f64], level: usize| {
                let cross = self.levels[level].cross.row(i);
                dot(u, &grams[level].apply(u)) - 2.0 * dot(u, cross)
            };
            let losses = |u: &[f64]| (0..grams.len()).map(|level| loss(u, level)).collect::<Vec<f64>>();
            u[..rank].copy_from_slice(gaussian.factor().row(i));
            let mut least = losses(u);
            if let Some(cholesky) = &cholesky {
                let cross = |r: usize| self.levels.iter().zip(weights).map(|(l, w)| w * l.cross[(i, r)]).sum();
                let mut best: Vec<f64> = (0..=rank).map(cross).collect();
                cholesky.solve(&mut best);
                let after = losses(&best);
                if dot(&after, weights) < dot(&least, weights) {
                    // else the solve has drowned in rounding: hardly any observation has this pixel
                    u.copy_from_slice(&best);
                    least = after;
                }
            }
            left.iter_mut().zip(least).for_each(|(left, loss)| *left += loss);
        }
        left
    }
}

impl<'a> Masked<'a> {
    /// The first `count` of `problem`, if the update is for them and for a `gaussian` with `rank` columns that are not 0.
    pub fn of(problem: &'a Problem<'a>, count: usize, gaussian: &Gaussian, rank: usize) -> Option<Self> {
        let (Some(mask), [sigma_y]) = (problem.mask(0), problem.observations.noise()) else { return None };
        let factor = gaussian.factor();
        let moves = |r: usize| (0..factor.rows()).any(|i| factor[(i, r)] != 0.0);
        let per_level = triangle(rank + 1) * mask.len() + factor.rows() * (rank + 1);
        let fits = problem.levels() * per_level <= LARGEST;
        let applies = fits && factor.cols() == rank && rank < factor.rows() && (0..rank).all(moves);
        applies.then_some(Self { problem, sigma_y: *sigma_y, count })
    }

    /// One EM iteration with the factors z as what is hidden, x = μ + U z + ε, ε ~ N(0, δ I): of the observed elements, whose
    /// noise is N(0, (δ + σ²) I), the M step is a regression on z of each element alone, terms weighted by 1/(δ + σ²), and then δ
    /// the likeliest for what it leaves: its mean less σ² where all have the same.
    ///
    /// What was not observed is not filled in, unlike in [`super::moments::update`], where δ can only fall to the share of deleted
    /// pixels in an iteration. The law of z is re-estimated and absorbed into U and μ (parameter expansion), which neither
    /// changes the model nor loses likelihood. U = 0 is a fixed point: it cannot be the start.
    ///
    /// # Reference
    /// Rubin and Thayer, *EM algorithms for ML factor analysis*, Psychometrika 1982; Liu, Rubin and Wu, *Parameter expansion to
    /// accelerate EM: the PX-EM algorithm*, Biometrika 1998; Meng and Rubin, *Maximum likelihood estimation via the ECM algorithm*,
    /// Biometrika 1993.
    pub fn update(&self, gaussian: &Gaussian, floor: f64) -> Result<Gaussian> {
        let (d, rank) = (gaussian.mean().len(), gaussian.factor().cols());
        let sums = self.sums(gaussian);
        let mut regression = Matrix::zeros(d, rank + 1); // u_i, and the shift of μ_i
        let now = gaussian.diag()[0];
        let variances: Vec<f64> = (1..=sums.levels.len()).map(|l| l as f64 * self.sigma_y * self.sigma_y).collect();
        let weights: Vec<f64> = variances.iter().map(|v| (now + variances[0]) / (now + v)).collect();
        let rows = regression.as_mut_slice().par_chunks_mut(self.problem.channels() * (rank + 1)).enumerate();
        let left: Vec<_> = rows.map(|(pixel, rows)| sums.regress(gaussian, &weights, pixel, rows)).collect();
        let residuals: Vec<Residuals> = (0..variances.len())
            .filter(|&l| sums.levels[l].terms > 0)
            .map(|l| Residuals {
                variance: variances[l],
                squares: sums.levels[l].squares + left.iter().map(|left| left[l]).sum::<f64>(),
                terms: sums.levels[l].terms as f64,
            })
            .collect();
        self.absorb(gaussian, &regression, &sums, likeliest(&residuals, now, floor))
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
        let (d, rank, channels) = (gaussian.mean().len(), gaussian.factor().cols(), self.problem.channels());
        let (width, pixels) = (triangle(rank + 1), d / channels);
        let level = || {
            let (gram, cross) = (Matrix::zeros(pixels, width), Matrix::zeros(d, rank + 1));
            Level { gram, cross, squares: 0.0, terms: 0 }
        };
        let levels = (0..self.problem.levels()).map(|_| level()).collect();
        let mut sums = Sums { levels, all: vec![0.0; width] };
        for first in (0..self.count).step_by(CHUNK) {
            let chunk = first..(first + CHUNK).min(self.count);
            let moments: Vec<Posterior> = chunk.clone().into_par_iter().map(|n| self.posterior(gaussian, n)).collect();
            let second = Matrix::from_fn(chunk.len(), width, |k, t| moments[k].second[t]);
            let first_moments = Matrix::from_fn(chunk.len(), rank + 1, |k, r| moments[k].first[r]);
            for (level, sums) in sums.levels.iter_mut().enumerate() {
                let of_level = |p: usize, k: usize| usize::from(moments[k].mask[p]) == level + 1;
                // an element's and a pixel's numbers side by side, 0 where not observed
                let mask = Matrix::from_fn(pixels, chunk.len(), |p, k| f64::from(u8::from(of_level(p, k))));
                let y = |i: usize, k: usize| if of_level(i / channels, k) { moments[k].y[i] } else { 0.0 };
                let y = Matrix::from_fn(d, chunk.len(), y);
                add_blocks(&mut sums.gram, &mask, &second);
                add_blocks(&mut sums.cross, &y, &first_moments);
                sums.squares += y.squared_norm();
                sums.terms += mask.as_slice().iter().filter(|m| **m == 1.0).count() * channels;
            }
            for posterior in &moments {
                sums.all.iter_mut().zip(&posterior.second).for_each(|(sum, x)| *sum += x);
            }
        }
        sums
    }

    /// Of observation `n`.
    fn posterior(&self, gaussian: &Gaussian, n: usize) -> Posterior {
        let (rank, channels) = (gaussian.factor().cols(), self.problem.channels());
        let mask = self.problem.mask(n).expect("one for each, as for the first");
        let y: Vec<f64> = self.problem.y(n).iter().zip(gaussian.mean()).map(|(y, mean)| y - mean).collect();
        let system = MaskSystem::new(gaussian, &mask, channels, self.sigma_y);
        let (mut first, cov) = system.factors(&y);
        first.push(1.0);
        let second = (0..=rank).flat_map(|r| {
            let (first, cov) = (&first, &cov);
            (r..=rank).map(move |s| first[r] * first[s] + if s < rank { cov[(r, s)] } else { 0.0 })
        });
        let second = second.collect();
        Posterior { y, mask: mask.into_owned(), second, first }
    }
}

/// What one observation adds to the sums.
struct Posterior {
    /// (D): y - μ, of which only what was observed counts.
    y: Vec<f64>,
    /// (pixels): the level of each, from 1; 0 where not observed.
    mask: Vec<u8>,
    /// E[z̃], R + 1 values.
    first: Vec<f64>,
    /// E[z̃ z̃ᵀ], the upper triangle.
    second: Vec<f64>,
}

/// What a regression leaves of all that has noise of one variance.
struct Residuals {
    variance: f64,
    squares: f64,
    terms: f64,
}

/// The δ of at least `floor` that maximises Σ -½ (squares/(δ + variance) + terms ln(δ + variance)); `now` if none is better.
fn likeliest(residuals: &[Residuals], now: f64, floor: f64) -> f64 {
    if let [only] = residuals {
        return (only.squares / only.terms - only.variance).max(floor);
    }
    let slope = |delta: f64| -> f64 {
        let of = |r: &Residuals| (r.squares / (delta + r.variance) - r.terms) / (delta + r.variance);
        residuals.iter().map(of).sum()
    };
    let value = |delta: f64| -> f64 {
        residuals.iter().map(|r| -r.squares / (delta + r.variance) - r.terms * (delta + r.variance).ln()).sum()
    };
    let (mut low, mut high) = (floor, residuals.iter().map(|r| r.squares / r.terms).fold(floor, f64::max));
    while slope(low) > 0.0 && high - low > 1e-14 * high {
        let middle = 0.5 * (low + high);
        if slope(middle) > 0.0 { low = middle } else { high = middle }
    }
    if value(low) >= value(now) { low } else { now }
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
