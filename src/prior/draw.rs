//! Exact draws of a Gaussian prior, and of the posterior under it.

use super::problem::Problem;
use super::system::{System, Systems};
use crate::Result;
use crate::backend::Shape;
use crate::data::Observations;
use crate::diffusion::Gaussian;
use crate::ops::noise::{Purpose, Stream};
use rayon::prelude::*;
use std::ops::Range;

/// Draws number `range` of x ~ N(μ, Σ). The bits of a draw depend on its number and on the seed, EM iteration, epoch and step of
/// `stream`; they share nothing with the draws that [`draw_posterior`] makes with the same stream.
///
/// # Shapes
/// (`range`, D).
pub fn draw_prior(gaussian: &Gaussian, range: Range<usize>, stream: Stream) -> Vec<f32> {
    let stream = Stream { correction: 1, ..stream }; // draw_posterior corrects those of correction 0
    range.into_par_iter().flat_map_iter(|k| prior_sample(gaussian, stream, k as u32)).map(|x| x as f32).collect()
}

/// Draws number `range` of p(x | y), x ~ N(μ, Σ), y = A x + noise: number k is draw k mod `draws` of observation
/// k / `draws`. By Matheron's rule, with x ~ N(μ, Σ) and e ~ N(0, σ_y² I),
///
/// x + Σ Aᵀ (A Σ Aᵀ + σ_y² I)⁻¹ (y - A x - e).
///
/// The bits of a draw depend on its number and on the seed, EM iteration, epoch and step of `stream`, not on the range or
/// the threads.
///
/// # Shapes
/// (`range`, H, W, C), those of `image`, whose N is ignored.
///
/// # Errors
/// When observations, image and prior do not fit.
///
/// # Reference
/// Wilson et al., *Pathwise conditioning of Gaussian processes*, JMLR 2021.
///
/// # Panics
/// When there are not so many observations.
pub fn draw_posterior(
    gaussian: &Gaussian,
    observations: &Observations,
    image: Shape,
    range: Range<usize>,
    draws: usize,
    stream: Stream,
) -> Result<Vec<f32>> {
    let problem = Problem::new(observations, image)?;
    let gaussian = problem.prior(gaussian)?;
    let systems = Systems::new(&gaussian, &problem)?;
    let d = image.row();
    let mut x = vec![0.0; range.len() * d];
    let mut rest = x.as_mut_slice();
    let mut tasks = Vec::new(); // the draws of one observation, which have their system in common
    let mut first = range.start;
    while first < range.end {
        let end = ((first / draws + 1) * draws).min(range.end);
        let (task, after) = rest.split_at_mut((end - first) * d);
        tasks.push((first, task));
        (rest, first) = (after, end);
    }
    tasks.into_par_iter().try_for_each(|(first, task)| {
        let n = first / draws;
        let system = systems.of(n)?;
        let y = systems.y(n, &*system);
        for (k, x) in task.chunks_exact_mut(d).enumerate() {
            let draw = matheron(&gaussian, &*system, &y, stream, (first + k) as u32);
            x.iter_mut().zip(problem.to_image(draw)).for_each(|(x, v)| *x = v as f32);
        }
        Ok(())
    })?;
    Ok(x)
}

/// Draw number `sample` of the prior.
fn prior_sample(gaussian: &Gaussian, stream: Stream, sample: u32) -> Vec<f64> {
    let (d, rank) = (gaussian.mean().len(), gaussian.factor().cols());
    let z: Vec<f64> = Stream { purpose: Purpose::Prior, ..stream }.each_normal(sample).take(d + rank).collect();
    let mut x = gaussian.factor().apply(&z[d..]);
    for (i, x) in x.iter_mut().enumerate() {
        *x += gaussian.mean()[i] + gaussian.diag()[i].sqrt() * z[i];
    }
    x
}

/// Draw number `sample` of the posterior.
fn matheron(gaussian: &Gaussian, system: &dyn System, y: &[f64], stream: Stream, sample: u32) -> Vec<f64> {
    let mut x = prior_sample(gaussian, stream, sample);
    // correction 1: with `diem observe`'s seed, correction 0 would be the very noise that the observation already has
    let e = Stream { purpose: Purpose::Measurement, correction: 1, ..stream }.each_normal(sample);
    let expected = system.forward(&x);
    let r: Vec<f64> =
        (y.iter().zip(expected).zip(e).enumerate()).map(|(m, ((y, ax), e))| y - ax - system.sigma_y(m) * e).collect();
    x.iter_mut().zip(system.gain(&r)).for_each(|(x, gain)| *x += gain);
    x
}
