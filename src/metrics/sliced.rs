//! The sliced Wasserstein distance: optimal transport of random one-dimensional projections, which sorting solves exactly.

use crate::backend::Shape;
use crate::data::{Observations, Samples, corruption};
use crate::linalg::dot;
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// SW₂² = E_w W₂²(<w, x>, <w, y>), w uniform on the unit sphere, over `projections` random w of `stream` (its purpose is set
/// here). It is 0 for equal samples, and for one shift δ of all of them ‖δ‖²/D. NaN where a sample is not finite.
///
/// # Shapes
/// `x` (N, D), `y` (M, D); N and M may differ.
///
/// # Errors
/// When the samples have not the same number of elements, or there are none.
///
/// # Reference
/// Bonneel, Rabin, Peyré and Pfister, Sliced and Radon Wasserstein barycenters of measures, 2015.
pub fn sliced_wasserstein(x: &Samples<f32>, y: &Samples<f32>, projections: usize, stream: Stream) -> Result<f64> {
    let d = x.shape.row();
    if y.shape.row() != d || x.data.is_empty() || y.data.is_empty() || projections == 0 {
        let found = format!("{:?} and {:?} with {projections} projections", x.shape, y.shape);
        return Err(Error::mismatch("sliced Wasserstein distance", "samples with equal extents, not empty", found));
    }
    let stream = Stream { purpose: Purpose::Projection, ..stream };
    let each = (0..projections as u32).into_par_iter().map(|number| {
        let w = direction(stream, number, d);
        let [mut x, mut y] = [x, y].map(|samples| project(samples, &w));
        x.sort_unstable_by(f64::total_cmp);
        y.sort_unstable_by(f64::total_cmp);
        squared_wasserstein(&x, &y)
    });
    Ok(each.collect::<Vec<f64>>().into_iter().sum::<f64>() / projections as f64)
}

/// How far what a prior predicts is from what was observed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PredictiveDistance {
    /// The mean squared distance of the observations to predictions.
    pub distance: f64,
    /// That of predictions to others, as many as there are observations: what `distance` is on average where the prior is right.
    pub floor: f64,
}

/// Predictions are made at most so many times.
const BLOCKS: usize = 8;

/// The sliced Wasserstein distance between what was observed, (y, A), and what the prior predicts, (A x + noise, A): it needs no
/// truth.
///
/// An operator differs from sample to sample, so y alone is not exchangeable, (y, A) is. Compared is the back-projection Aᵀ y, a
/// function of both: for a mask it is y with 0 where nothing was measured, which tells the mask; for a matrix it turns every
/// projection w into the statistic <A w, y>; what is the same for all samples (blur, downsampling) needs no A, and y or a
/// multiple of Aᵀ y is compared. Samples of the prior meet the operators of the observations in turn, so that the
/// operators of both sides are the same, and only x and noise differ.
///
/// N numbers are some s²/N from their own distribution, which for a few hundred observations is more than the difference between
/// a good prior and a bad one. So the same is measured of predictions in the place of the observations: of K blocks of N samples
/// of the prior, each is compared with the others, and so are the observations.
///
/// # Shapes
/// `prior` (P, D), P ≥ 2; with fewer than two samples for each observation, the first P/2 observations count. K = P/N, at most 8.
///
/// # Errors
/// When there are fewer samples of the prior, or their extents do not fit the operator.
pub fn sliced_wasserstein_observations(
    observations: &Observations,
    prior: &Samples<f32>,
    projections: usize,
    stream: Stream,
) -> Result<PredictiveDistance> {
    let n = observations.len().min(prior.shape.n / 2);
    if n == 0 {
        let expected = "at least two samples of the prior";
        return Err(Error::mismatch("sliced Wasserstein distance", expected, prior.shape.n));
    }
    observations.check_image(prior.shape)?;
    let (observations, blocks) = (&observations.rows(0..n), (prior.shape.n / n).min(BLOCKS));
    let stream = Stream { purpose: Purpose::Projection, ..stream };
    let predict = |k: usize| {
        let x = prior.gather(&(k * n..(k + 1) * n).collect::<Vec<_>>());
        Ok(back_projections(&corruption::repeat(observations, &x, stream.at(0, 1 + k))?))
    };
    let predicted = (0..blocks).map(predict).collect::<Result<Vec<_>>>()?;
    let observed = back_projections(observations);
    let each = (0..projections as u32).into_par_iter().map(|number| {
        let w = direction(stream, number, observed.shape.row());
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let observed = sorted(project(&observed, &w));
        let predicted: Vec<Vec<f64>> = predicted.iter().map(|block| sorted(project(block, &w))).collect();
        let others = |k: usize| (0..blocks).filter(move |&j| j != k).flat_map(|j| predicted[j].iter().copied());
        let pairs = (0..blocks).map(|k| {
            let others = sorted(others(k).collect());
            [squared_wasserstein(&observed, &others), squared_wasserstein(&predicted[k], &others)]
        });
        pairs.fold([0.0; 2], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]])
    });
    let sums = each.collect::<Vec<_>>().into_iter().fold([0.0; 2], |sum, pair| [sum[0] + pair[0], sum[1] + pair[1]]);
    let [distance, floor] = sums.map(|sum| sum / (blocks * projections) as f64);
    Ok(PredictiveDistance { distance, floor })
}

/// (N, D): the back-projection of every observation.
fn back_projections(observations: &Observations) -> Samples<f32> {
    let rows: Vec<Vec<f32>> = (0..observations.len()).map(|n| observations.back_projection(n)).collect();
    let (n, d) = (rows.len(), rows[0].len());
    Samples::new(Shape::rows(n, d), rows.concat())
}

/// A random unit vector.
pub(crate) fn direction(stream: Stream, number: u32, d: usize) -> Vec<f64> {
    let mut w: Vec<f64> = stream.each_normal(number).take(d).collect();
    let norm = dot(&w, &w).sqrt();
    w.iter_mut().for_each(|w| *w /= norm);
    w
}

/// <w, x> of every sample.
pub(crate) fn project(samples: &Samples<f32>, w: &[f64]) -> Vec<f64> {
    let rows = samples.data.chunks_exact(w.len());
    rows.map(|x| x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum()).collect()
}

/// ∫ (F⁻¹(q) - G⁻¹(q))² dq of two sorted samples, whose quantile functions are steps of width 1/N and 1/M.
fn squared_wasserstein(x: &[f64], y: &[f64]) -> f64 {
    let (n, m) = (x.len(), y.len());
    let (mut i, mut j, mut at, mut sum) = (0, 0, 0, 0.0); // `at` is q in units of 1/(N M)
    while i < n && j < m {
        let (end_x, end_y) = ((i + 1) * m, (j + 1) * n);
        let end = end_x.min(end_y);
        sum += (end - at) as f64 * (x[i] - y[j]).powi(2);
        i += usize::from(end == end_x);
        j += usize::from(end == end_y);
        at = end;
    }
    sum / (n * m) as f64
}
