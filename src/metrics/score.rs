//! How well a prior predicts single observations: a proper score.

use crate::data::observations::Applied;
use crate::data::{Measured, Observations, Samples};
use crate::ops::noise::{Purpose, Stream};
use crate::{Error, Result};
use rayon::prelude::*;

/// Slices of all observations together, if that is no more than so many products with elements of x; of an observation one, at least.
const SLICES: usize = 4096;
const PRODUCTS: usize = 1 << 34;

/// The mean over observations and slices of the continuous ranked probability score of what the prior predicts,
///
/// CRPS = E|q - v| - ½ E|q - q'|, v = <w, y>, q = <w, A x + noise> and q' another, x from the prior,
///
/// without bias whatever the number of samples. It is smallest for the distribution that y is of, given A: of two priors the one
/// with the lower score predicts better, by E_w,A ∫ (F - G)² with the distribution functions of q and of v. Zero is no bound, but
/// differences are sharp: all priors are asked about the same observations, each with its own operator. w is a random direction
/// in the plane of two random measured values, as sums of many would be almost normal whatever x is.
///
/// NaN where nothing was measured, or a sample is not finite.
///
/// # Shapes
/// `prior` (P, D), P ≥ 2: every sample meets every observation.
///
/// # Errors
/// When there are fewer samples, or their extents do not fit the operator.
///
/// # Reference
/// Gneiting and Raftery, Strictly proper scoring rules, prediction, and estimation, 2007, equation 21.
pub fn predictive_score(observations: &Observations, prior: &Samples<f32>, stream: Stream) -> Result<f64> {
    if prior.shape.n < 2 {
        return Err(Error::mismatch("predictive score", "at least two samples of the prior", prior.shape.n));
    }
    observations.check_image(prior.shape)?;
    let stream = Stream { purpose: Purpose::Projection, ..stream };
    let operators = Applied::new(observations.measured(), prior.shape);
    let slices = SLICES.min(PRODUCTS / prior.data.len()).div_ceil(observations.len()).max(1);
    let each = (0..observations.len() * slices).into_par_iter().filter_map(|k| {
        let Slice { v, direction, sigma_y } =
            Slice::draw(observations, &operators, k / slices, stream.at(1, 0), k as u32)?;
        let noise = stream.at(2, 0).each_normal(k as u32);
        let along = |x: &[f32]| direction.iter().map(|(i, u)| u * f64::from(x[*i])).sum::<f64>();
        let q = prior.data.chunks_exact(prior.shape.row()).zip(noise).map(|(x, z)| along(x) + sigma_y * z);
        Some(crps(q.collect(), v))
    });
    let each: Vec<f64> = each.collect();
    Ok(each.iter().sum::<f64>() / each.len() as f64)
}

/// <w, y> of an observation, and Aᵀ w, ‖w‖ = 1.
struct Slice {
    v: f64,
    /// The elements of Aᵀ w that are not 0, and where they are.
    direction: Vec<(usize, f64)>,
    sigma_y: f64,
}

impl Slice {
    /// Number `number` of observation `n`; `None` where nothing was measured.
    fn draw(
        observations: &Observations,
        operators: &Applied<'_>,
        n: usize,
        stream: Stream,
        number: u32,
    ) -> Option<Self> {
        let y = observations.y().row(n);
        let (operator, shape) = (observations.measured(), observations.y().shape);
        let measured: Vec<usize> = (0..y.len()).filter(|i| operator.observed(n, shape, *i)).collect();
        let [a, b, turn] = std::array::from_fn(|i| stream.uniforms(number).nth(i).expect("it does not end"));
        let first = *measured.get((a * measured.len() as f64) as usize)?;
        let others: Vec<usize> = measured.into_iter().filter(|i| *i != first).collect();
        let second = others.get((b * others.len() as f64) as usize);
        let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
        let w = second.map_or(vec![(first, 1.0)], |second| vec![(first, cos), (*second, sin)]);
        let direction = match operator {
            Measured::Mask(_) => w.clone(),
            _ => {
                let mut full = vec![0.0; y.len()];
                w.iter().for_each(|(m, w)| full[*m] = *w);
                operators.adjoint(n, &full).into_iter().enumerate().collect()
            }
        };
        let v = w.iter().map(|(i, w)| w * f64::from(y[*i])).sum();
        Some(Self { v, direction, sigma_y: observations.noise()[n % observations.noise().len()] })
    }
}

/// E|q - v| - ½ E|q - q'| over all q, and all pairs of two of them: Σ_{i<j} (q_j - q_i) = Σ_i (2 i + 1 - P) q_i in their order, from 0.
fn crps(mut q: Vec<f64>, v: f64) -> f64 {
    q.sort_unstable_by(f64::total_cmp);
    let p = q.len() as f64;
    let distance = q.iter().map(|q| (q - v).abs()).sum::<f64>() / p;
    let spread = q.iter().enumerate().map(|(i, q)| (2.0 * i as f64 + 1.0 - p) * q).sum::<f64>();
    distance - spread / (p * (p - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_counted_once() {
        // |q - v| is 1, 1, 3 and the distances of pairs 2, 4, 2
        let found = crps(vec![4.0, 0.0, 2.0], 1.0);
        assert!((found - (5.0 / 3.0 - 0.5 * 8.0 / 3.0)).abs() < 1e-14, "{found}");
    }
}
