//! Whether posterior draws are calibrated: for a truth drawn from the prior, truth and draws are exchangeable given the
//! observation, so that whatever the rank of the truth among K draws is measured in, it is uniform on 0 ..= K.

mod uniformity;

pub use uniformity::{FEWEST_RANKS, Test, band};

use super::residual::chi_square;
use super::sliced::direction;
use crate::data::observations::Applied;
use crate::data::{Observations, Samples};
use crate::linalg::dot;
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Quantities of x whose ranks are tested: the coordinates where there are no more, else as many random projections.
const QUANTITIES: usize = 16;

/// Nominal levels of the central intervals, as near to them as K draws allow.
const LEVELS: [f64; 4] = [0.5, 0.8, 0.9, 0.95];

/// What the draws of many posteriors, whose truth is known, say about their calibration.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Calibration {
    /// N.
    pub observations: usize,
    /// K of each.
    pub draws: usize,
    /// Of central intervals.
    pub coverage: Vec<Coverage>,
    /// Simulation-based calibration of every quantity.
    pub ranks: Vec<Ranks>,
    /// Tests of accuracy with random points.
    pub tarp: Tarp,
}

/// How often the truth lies in the central interval of its draws, over all coordinates of all observations.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Coverage {
    /// The probability that it should.
    pub nominal: f64,
    /// The share that did.
    pub found: f64,
    /// The standard error of `found`: coordinates of one observation depend on each other, observations do not.
    pub error: f64,
}

/// The ranks of the truth among the draws, in one quantity.
///
/// # Reference
/// Talts, Betancourt, Simpson, Vehtari and Gelman, Validating Bayesian inference algorithms with simulation-based calibration,
/// 2018; Modrák et al., Simulation-based calibration checking for Bayesian computation: the choice of test quantities shapes
/// sensitivity, 2023 (the likelihood).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Ranks {
    /// "x\[3\]", "projection 3", "likelihood".
    pub quantity: String,
    /// How many ranks fell into each of equal parts of 0 ..= K.
    pub histogram: Vec<usize>,
    /// χ² of the histogram.
    pub test: Test,
}

impl Ranks {
    /// The probability of each part of the histogram, for ranks in 0 ..= `k`.
    pub fn expected(&self, k: usize) -> Vec<f64> {
        uniformity::expected(self.histogram.len(), k)
    }
}

/// The shares of the draws that are nearer to a random point than the truth is: uniform too.
///
/// # Reference
/// Lemos, Coogan, Hezaveh and Perreault-Levasseur, Sampling-based accuracy testing of posterior estimators for general inference,
/// 2023.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Tarp {
    /// The expected coverage at credibilities 0, 1/K, .., 1.
    pub coverage: Vec<f64>,
    /// Kolmogorov-Smirnov, of the shares.
    pub test: Test,
}

impl Calibration {
    /// Compares `truth` with the draws of each of its posteriors; with `observations`, the likelihood of both is compared too,
    /// which catches a posterior that ignores what was observed. `stream` gives the projections and breaks ties.
    ///
    /// # Shapes
    /// `truth` (N, ..), `draws` (N K, ..), those of one observation adjacent.
    ///
    /// # Errors
    /// When the extents do not agree, or a draw is not finite.
    pub fn new(
        truth: &Samples<f32>,
        draws: &Samples<f32>,
        observations: Option<&Observations>,
        stream: Stream,
    ) -> Result<Self> {
        let n = truth.shape.n;
        if n == 0 || draws.shape.n < n || !draws.shape.n.is_multiple_of(n) || truth.shape.row() != draws.shape.row() {
            let found = format!("{:?} and {:?}", truth.shape, draws.shape);
            return Err(Error::mismatch("calibration", "as many draws of the posterior of each truth", found));
        }
        if let Some(at) = truth.data.iter().chain(&draws.data).position(|x| !x.is_finite()) {
            let row = at / truth.shape.row();
            let place = if row < n { format!("truth {row}") } else { format!("draw {}", row - n) };
            return Err(Error::NonFinite { place });
        }
        let k = draws.shape.n / n;
        let posteriors = Posteriors { truth, draws, k, stream: Stream { purpose: Purpose::Projection, ..stream } };
        Ok(Self {
            observations: n,
            draws: k,
            coverage: posteriors.coverage(),
            ranks: posteriors.all_ranks(observations)?,
            tarp: posteriors.tarp(),
        })
    }

    /// The probability, for a calibrated posterior, that any of the tests turns out as badly as the worst did: the smallest
    /// p-value times their number (Bonferroni).
    pub fn p_value(&self) -> f64 {
        let tests = self.ranks.iter().map(|ranks| ranks.test).chain([self.tarp.test]);
        let smallest = tests.map(|test| test.p_value).fold(1.0, f64::min);
        (smallest * (self.ranks.len() + 1) as f64).min(1.0)
    }
}

/// Truths with the draws of their posteriors.
struct Posteriors<'a> {
    truth: &'a Samples<f32>, // (N, D)
    draws: &'a Samples<f32>, // (N K, D)
    k: usize,
    stream: Stream,
}

impl Posteriors<'_> {
    /// The rank of the truth among the draws of every observation, by the number that `value` gives to a row: truth i is row
    /// (i, None), its draws (i, k). Among equals its place is random, by the stream of quantity number `quantity`.
    fn ranks(&self, quantity: usize, value: impl Fn(usize, &[f32]) -> f64 + Sync) -> Vec<usize> {
        let ties = self.stream.at(2, quantity % (1 << 16)); // what the counter holds
        let rank = |i: usize| {
            let own = value(i, self.truth.row(i));
            let draws = (0..self.k).map(|k| value(i, self.draws.row(i * self.k + k)));
            let (below, equal) =
                draws.fold((0, 0), |(below, equal), x| (below + usize::from(x < own), equal + usize::from(x == own)));
            let u = ties.uniforms(i as u32).next().expect("one for every element");
            below + (u * (equal + 1) as f64) as usize
        };
        (0..self.truth.shape.n).into_par_iter().map(rank).collect()
    }

    fn all_ranks(&self, observations: Option<&Observations>) -> Result<Vec<Ranks>> {
        let d = self.truth.shape.row();
        let mut all: Vec<Ranks> = (0..d.min(QUANTITIES))
            .map(|j| {
                if d <= QUANTITIES {
                    return self.tested(format!("x[{j}]"), self.ranks(j, |_, x| f64::from(x[j])));
                }
                let w = direction(self.stream, j as u32, d);
                let projection = |_: usize, x: &[f32]| x.iter().zip(&w).map(|(x, w)| f64::from(*x) * w).sum();
                self.tested(format!("projection {j}"), self.ranks(j, projection))
            })
            .collect();
        if let Some(observations) = observations {
            observations.check_image(self.truth.shape)?;
            let operators = Applied::new(observations.measured(), self.truth.shape);
            let ranks = self.ranks(QUANTITIES, |i, x| -chi_square(observations, &operators, i, x));
            all.push(self.tested("likelihood".to_owned(), ranks));
        }
        Ok(all)
    }

    fn tested(&self, quantity: String, ranks: Vec<usize>) -> Ranks {
        Ranks {
            quantity,
            histogram: uniformity::histogram(&ranks, self.k),
            test: uniformity::chi_square(&ranks, self.k),
        }
    }

    fn coverage(&self) -> Vec<Coverage> {
        let (n, d, k) = (self.truth.shape.n, self.truth.shape.row(), self.k);
        let ranks: Vec<Vec<usize>> = (0..d).map(|j| self.ranks(QUANTITIES + 1 + j, |_, x| f64::from(x[j]))).collect();
        let level = |level: f64| {
            let outside = (0.5 * (1.0 - level) * (k + 1) as f64).round() as usize; // ranks on either side
            let inside = outside..(k + 1).saturating_sub(outside);
            let shares: Vec<f64> = (0..n)
                .map(|i| ranks.iter().filter(|ranks| inside.contains(&ranks[i])).count() as f64 / d as f64)
                .collect();
            let found = shares.iter().sum::<f64>() / n as f64;
            let squares = shares.iter().map(|s| (s - found).powi(2)).sum::<f64>();
            let error = (squares / n.saturating_sub(1).max(1) as f64 / n as f64).sqrt();
            Coverage { nominal: inside.len() as f64 / (k + 1) as f64, found, error }
        };
        let mut levels = LEVELS.map(level).to_vec();
        levels.dedup_by_key(|level| level.nominal); // few draws tell few levels apart
        levels
    }

    /// The random point of observation i is the truth of the next one, which is independent of it; coordinates are measured in
    /// their standard deviations over all truths.
    fn tarp(&self) -> Tarp {
        let (n, k) = (self.truth.shape.n, self.k);
        let weights = self.weights();
        let distance = |i: usize, x: &[f32]| {
            let point = self.truth.row((i + 1) % n);
            x.iter().zip(point).zip(&weights).map(|((x, p), w)| f64::from(x - p).powi(2) * w).sum::<f64>()
        };
        let ranks = self.ranks(QUANTITIES, distance);
        let spread = self.stream.at(3, 0); // a rank stands for an interval of the credibility
        let uniform = |(i, rank): (usize, &usize)| {
            let u = spread.uniforms(i as u32).next().expect("one for every element");
            (*rank as f64 + u) / (k + 1) as f64
        };
        let shares: Vec<f64> = ranks.iter().enumerate().map(uniform).collect();
        let below = |c: f64| shares.iter().filter(|share| **share <= c).count() as f64 / n as f64;
        let coverage = (0..=k).map(|i| below(i as f64 / k as f64)).collect();
        Tarp { coverage, test: uniformity::kolmogorov_smirnov(&shares) }
    }

    /// 1/variance of every coordinate over the truths; 0 where they are all equal.
    fn weights(&self) -> Vec<f64> {
        let (n, d) = (self.truth.shape.n, self.truth.shape.row());
        let column = |j: usize| (0..n).map(|i| f64::from(self.truth.row(i)[j])).collect::<Vec<_>>();
        let weight = |j: usize| {
            let x = column(j);
            let mean = x.iter().sum::<f64>() / n as f64;
            let centred: Vec<f64> = x.iter().map(|x| x - mean).collect();
            let variance = dot(&centred, &centred) / n as f64;
            if variance > 0.0 { 1.0 / variance } else { 0.0 }
        };
        (0..d).map(weight).collect()
    }
}
