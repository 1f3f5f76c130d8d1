//! The paper's figure 2: how far the posterior that a covariance heuristic leads to is from the exact one, over σ_t.
//!
//! The prior is a mixture of isotropic Gaussians on a random curve in R³, so that d(x_t) and its Jacobian are exact, and
//! what differs is the covariance only: with one projection y = <a, x> + noise, the approximate posterior is
//!
//! q(x_t | y) ∝ p(x_t) N(y; <a, d(x_t)>, σ_y² + aᵀ V a), V a stand-in for V\[x | x_t\],
//!
//! and the exact one p(x_t | y) a mixture again. Both are sampled exactly, the first by rejection from p(x_t).

use crate::Result;
use crate::backend::reference::Reference;
use crate::backend::{Backend, Keep, Shape};
use crate::data::manifold::Manifold;
use crate::data::{Samples, corruption};
use crate::diffusion::{Denoiser, Mixture};
use crate::linalg::{Cholesky, Matrix, dot};
use crate::metrics::sinkhorn::{self, Divergence, authors_figure, transport};
use crate::ops::noise::{Purpose, Stream};
use crate::posterior::CovarianceKind;
use rayon::prelude::*;

/// Dimensions.
const D: usize = 3;

/// Components of the mixture.
const COMPONENTS: usize = 256;

/// Their standard deviation.
const STD: f64 = 0.01;

/// σ_y.
const SIGMA_Y: f64 = 0.01;

/// Draws of p(x_t) that are tried at once.
const ROUND: u32 = 1 << 15;

/// Draws of p(x_t) at most: a heuristic that accepts fewer points of them has no posterior to compare where p(x_t) has any mass.
const MOST: u32 = 1 << 22;

/// Draws after which a heuristic is given up that would not accept enough of [`MOST`] at the rate so far.
const TRIAL: u32 = 1 << 18;

/// The heuristics, the paper's own first.
pub const HEURISTICS: [CovarianceKind; 5] =
    [CovarianceKind::Tweedie, CovarianceKind::Prior, CovarianceKind::Unit, CovarianceKind::Sigma, CovarianceKind::Zero];

/// A prior, and one observation of it.
pub struct Scene {
    means: Matrix, // (K, D)
    mixture: Mixture,
    a: Vec<f64>, // (D), of unit length
    y: f64,
    seed: u64,
}

/// The result at one noise level: the authors' figure of every one of [`HEURISTICS`], where it has a posterior.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Level {
    /// Which curve, projection and observation.
    pub seed: u64,
    /// σ_t.
    pub sigma: f64,
    /// max(OT(u₁, v) - OT(u₁, u₂), 1e-6).
    pub divergences: [Option<Divergence>; HEURISTICS.len()],
}

impl Scene {
    /// The scene of `seed`: the truth is the first of the mixture's means.
    ///
    /// # Errors
    /// Never, for constants that make sense.
    pub fn new(seed: u64) -> Result<Self> {
        let points = Manifold::new(D, seed).points(0, COMPONENTS);
        let means = Matrix::from_fn(COMPONENTS, D, |k, j| f64::from(points.row(k)[j]));
        let projection = corruption::random_projections(Shape::rows(1, D), 1, seed);
        let a: Vec<f64> = projection.data.iter().map(|a| f64::from(*a)).collect();
        let noise = Stream::new(seed, Purpose::Measurement).normals(0, 0)[0];
        let y = dot(&a, means.row(0)) + SIGMA_Y * noise;
        Ok(Self { mixture: Mixture::new(means.clone(), &[1.0; COMPONENTS], STD)?, means, a, y, seed })
    }

    /// Compares `points` draws of every posterior at noise level number `level`, σ_t = `sigma`.
    ///
    /// # Errors
    /// As [`transport`].
    pub fn compare(&self, level: usize, sigma: f64, points: usize, settings: sinkhorn::Settings) -> Result<Level> {
        let all = self.exact(level, sigma, 2 * points);
        let u_1 = all.first(points);
        let u_2 = all.gather(&(points..2 * points).collect::<Vec<_>>());
        let floor = transport(&u_1, &u_2, settings)?;
        let mut divergences = [None; HEURISTICS.len()];
        for (divergence, v) in divergences.iter_mut().zip(self.approximate(level, sigma, points)?) {
            if let Some(v) = v {
                *divergence = Some(authors_figure(transport(&u_1, &v, settings)?, floor));
            }
        }
        Ok(Level { seed: self.seed, sigma, divergences })
    }

    /// The stream of `purpose` at a noise level.
    fn stream(&self, purpose: Purpose, level: usize) -> Stream {
        Stream::new(self.seed, purpose).at(level, 0)
    }

    /// `n` draws of p(x_t | y): a component by its evidence, x by Matheron's rule, then noise.
    fn exact(&self, level: usize, sigma: f64, n: usize) -> Samples<f32> {
        let (variance, stream) = (STD * STD, self.stream(Purpose::Start, level));
        let total = variance + SIGMA_Y * SIGMA_Y;
        let evidence = |k| (-0.5 * (self.y - dot(&self.a, self.means.row(k))).powi(2) / total).exp();
        let cumulative: Vec<f64> = (0..COMPONENTS)
            .scan(0.0, |sum, k| {
                *sum += evidence(k);
                Some(*sum)
            })
            .collect();
        let draw = |i: u32| {
            let [z, w, u] = [0, 1, 2].map(|block| stream.normals(i, block)); // of x, of x_t; u[0] of the measurement
            let at = stream.words(i, 3)[0] as f64 * 2f64.powi(-32) * cumulative[COMPONENTS - 1];
            let k = cumulative.partition_point(|c| *c <= at).min(COMPONENTS - 1);
            let x: Vec<f64> = (0..D).map(|j| self.means[(k, j)] + STD * z[j]).collect();
            let gain = variance / total * (self.y - dot(&self.a, &x) - SIGMA_Y * u[0]);
            (0..D).map(|j| (x[j] + gain * self.a[j] + sigma * w[j]) as f32).collect::<Vec<_>>()
        };
        Samples::new(Shape::rows(n, D), (0..n as u32).flat_map(draw).collect())
    }

    /// `points` draws of every q(x_t | y), or none where too few of the draws of p(x_t) are accepted.
    fn approximate(&self, level: usize, sigma: f64, points: usize) -> Result<Vec<Option<Samples<f32>>>> {
        let backend = Reference::new();
        let targets = self.targets(sigma)?;
        let mut accepted: Vec<Vec<f32>> = vec![Vec::new(); targets.len()];
        for first in (0..MOST).step_by(ROUND as usize) {
            const PIECE: u32 = 512;
            let pieces: Vec<Vec<Vec<f32>>> = (0..ROUND / PIECE)
                .into_par_iter()
                .map(|piece| {
                    self.try_draws(&backend, &targets, level, sigma, first + piece * PIECE..first + (piece + 1) * PIECE)
                })
                .collect();
            for piece in pieces {
                accepted.iter_mut().zip(piece).for_each(|(all, more)| all.extend(more));
            }
            let tried = first + ROUND;
            let hopeless = |n: usize| tried >= TRIAL && n as f64 * f64::from(MOST) < points as f64 * f64::from(tried);
            if accepted.iter().map(|x| x.len() / D).all(|n| n >= points || hopeless(n)) {
                break;
            }
        }
        let enough = |x: Vec<f32>| {
            (x.len() >= points * D).then(|| Samples::new(Shape::rows(points, D), x[..points * D].to_vec()))
        };
        Ok(accepted.into_iter().map(enough).collect())
    }

    /// Draws number `range` of p(x_t), and for each target those that it accepts.
    fn try_draws(
        &self,
        backend: &Reference,
        targets: &[Target],
        level: usize,
        sigma: f64,
        range: std::ops::Range<u32>,
    ) -> Vec<Vec<f32>> {
        let stream = self.stream(Purpose::Prior, level);
        let (n, std) = (range.len(), (STD * STD + sigma * sigma).sqrt());
        let draw = |i: u32| {
            let (z, k) = (stream.normals(i, 0), stream.words(i, 1)[0] as usize % COMPONENTS);
            (0..D).map(move |j| self.means[(k, j)] + std * z[j])
        };
        let x_t = backend.upload(Shape::rows(n, D), &range.clone().flat_map(draw).collect::<Vec<f64>>());
        let condition = Denoiser::<Reference>::condition(&self.mixture, backend, &[sigma], Keep::Input);
        let (x_hat, saved) = self.mixture.forward(backend, &x_t, &condition, Keep::Input);
        let saved = saved.expect("Keep::Input keeps what the VJP needs");
        let a = backend.upload(Shape::rows(n, D), &self.a.repeat(n));
        let g = self.mixture.vjp(backend, &condition, &saved, &a);
        let accept = |target: &Target| {
            let rows = range.clone().enumerate().filter(|(row, i)| {
                let u = (f64::from(stream.words(*i, 1)[1]) + 0.5) * 2f64.powi(-32);
                let residual = self.y - dot(&self.a, x_hat.row(*row));
                u.ln() < target.log_acceptance(residual, sigma * sigma * dot(&self.a, g.row(*row)))
            });
            rows.flat_map(|(row, _)| x_t.row(row)).map(|x| *x as f32).collect()
        };
        targets.iter().map(accept).collect()
    }

    /// aᵀ V a of every heuristic at σ_t.
    fn targets(&self, sigma: f64) -> Result<Vec<Target>> {
        let variance_t = sigma * sigma;
        let target = |kind: CovarianceKind| {
            Ok(match kind {
                // J's smallest eigenvalue is s²/(s² + σ²)
                CovarianceKind::Tweedie => {
                    Target { fixed: None, least: variance_t * STD * STD / (STD * STD + variance_t) }
                }
                CovarianceKind::Prior => Target::fixed(self.prior_variance(variance_t)?),
                CovarianceKind::Unit => Target::fixed(variance_t / (1.0 + variance_t)),
                CovarianceKind::Sigma => Target::fixed(variance_t),
                CovarianceKind::Zero => Target::fixed(0.0),
            })
        };
        HEURISTICS.into_iter().map(target).collect()
    }

    /// aᵀ (Σ_x⁻¹ + Σ_t⁻¹)⁻¹ a = aᵀ Σ_x (Σ_x + Σ_t)⁻¹ Σ_t a.
    fn prior_variance(&self, variance_t: f64) -> Result<f64> {
        let k = COMPONENTS as f64;
        let mean: Vec<f64> = (0..D).map(|j| (0..COMPONENTS).map(|i| self.means[(i, j)]).sum::<f64>() / k).collect();
        let centred = Matrix::from_fn(COMPONENTS, D, |i, j| self.means[(i, j)] - mean[j]);
        let second = centred.transpose().times(&centred);
        let cov = Matrix::from_fn(D, D, |i, j| second[(i, j)] / k + if i == j { STD * STD } else { 0.0 });
        let mut v = self.a.clone();
        Cholesky::new(cov.clone().plus(&Matrix::scaled_identity(D, variance_t)))?.solve(&mut v);
        Ok(variance_t * dot(&cov.apply(&self.a), &v))
    }
}

/// A likelihood N(y; <a, x̂>, σ_y² + aᵀ V a).
struct Target {
    /// aᵀ V a where it is the same for all x_t; Tweedie's is not.
    fixed: Option<f64>,
    /// The smallest aᵀ V a.
    least: f64,
}

impl Target {
    fn fixed(variance: f64) -> Self {
        Self { fixed: Some(variance), least: variance }
    }
    /// ln of the likelihood over the largest that there is, for a residual y - <a, x̂> and Tweedie's aᵀ V a.
    fn log_acceptance(&self, residual: f64, tweedie: f64) -> f64 {
        let [variance, least] = [self.fixed.unwrap_or(tweedie), self.least].map(|v| v + SIGMA_Y * SIGMA_Y);
        -0.5 * residual * residual / variance - 0.5 * (variance / least).ln()
    }
}
