//! Observations under a Gaussian prior, each with its system S = A Σ Aᵀ + σ_y² I.

use super::dense::DenseSystem;
use super::mask::MaskSystem;
use super::problem::Problem;
use super::spectral::SpectralSystem;
use crate::data::Measured;
use crate::diffusion::Gaussian;
use crate::linalg::Matrix;
use crate::{Error, Result};
use std::sync::Arc;

/// One observation's operator under x ~ N(μ, Σ): y ~ N(A μ, S), S = A Σ Aᵀ + σ_y² I, factored once.
pub(super) trait System: Send + Sync {
    /// What of an observation's `y` was measured, M numbers.
    fn measured(&self, y: &[f64]) -> Vec<f64>;
    /// Standard deviation of the noise of number `m` of them.
    fn sigma_y(&self, m: usize) -> f64;
    /// A x.
    fn forward(&self, x: &[f64]) -> Vec<f64>;
    /// Σ Aᵀ S⁻¹ r: how far the residual r = y - A μ moves the mean.
    fn gain(&self, r: &[f64]) -> Vec<f64>;
    /// ln N(r; 0, S).
    fn log_density(&self, r: &[f64]) -> f64;
    /// `product` (L, D) += V C, C = V\[x | y\] = Σ - Σ Aᵀ S⁻¹ A Σ.
    fn add_covariance_product(&self, v: &Matrix, product: &mut Matrix);
    /// tr C.
    fn variance(&self) -> f64;
}

/// The systems of all observations.
pub(super) struct Systems<'a> {
    pub gaussian: &'a Gaussian,
    problem: &'a Problem<'a>,
    /// That of all observations, where operator and noise are the same for all.
    shared: Option<Arc<dyn System + 'a>>,
}

impl<'a> Systems<'a> {
    /// Those of `problem` under its own prior, [`Problem::prior`].
    ///
    /// # Errors
    /// As [`Systems::of`].
    pub fn new(gaussian: &'a Gaussian, problem: &'a Problem<'a>) -> Result<Self> {
        let mut systems = Self { gaussian, problem, shared: None };
        let observations = problem.observations;
        if observations.measured().count() == 1 && observations.noise().len() == 1 {
            systems.shared = Some(systems.of(0)?);
        }
        Ok(systems)
    }

    /// That of all observations, where there is one.
    pub fn shared(&self) -> Option<&(dyn System + 'a)> {
        self.shared.as_deref()
    }

    /// That of observation `n`.
    ///
    /// # Errors
    /// When S is not positive definite in f64: σ_y is below 1e-8 of what the prior expects.
    pub fn of(&self, n: usize) -> Result<Arc<dyn System + 'a>> {
        if let Some(shared) = &self.shared {
            return Ok(shared.clone());
        }
        let (problem, sigma_y) = (self.problem, self.problem.sigma_y(n));
        if let Some(mask) = problem.mask(n) {
            return Ok(Arc::new(MaskSystem::new(self.gaussian, &mask, problem.channels(), sigma_y)));
        }
        if let Some(filter) = problem.filter() {
            return Ok(Arc::new(SpectralSystem::new(self.gaussian, filter, problem.observations.y().shape, sigma_y)));
        }
        let Measured::Dense(a) = problem.observations.measured() else { unreachable!("the only one left") };
        Ok(Arc::new(DenseSystem::new(self.gaussian, a.row(n), sigma_y).map_err(|e| {
            let place = format!("A of observation {n} under the Gaussian prior");
            Error::mismatch(place, format_args!("a larger noise than {sigma_y}"), e)
        })?))
    }

    /// What was measured of observation `n`.
    pub fn y(&self, n: usize, system: &dyn System) -> Vec<f64> {
        system.measured(&self.problem.y(n))
    }

    /// y - A μ of observation `n`.
    pub fn residual(&self, n: usize, system: &dyn System) -> Vec<f64> {
        let expected = system.forward(self.gaussian.mean());
        self.y(n, system).iter().zip(expected).map(|(y, e)| y - e).collect()
    }

    /// ln p(y) of observation `n`.
    ///
    /// # Errors
    /// As [`Systems::of`].
    pub fn log_evidence(&self, n: usize) -> Result<f64> {
        let system = self.of(n)?;
        Ok(system.log_density(&self.residual(n, &*system)) + self.problem.surplus(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::noise::{Purpose, Stream};

    const D: usize = 24;
    const CHANNELS: usize = 3;
    const MASK: [u8; 8] = [1, 0, 0, 1, 0, 1, 0, 0];

    fn normals(len: usize, sample: u32) -> Vec<f64> {
        let block = |block| Stream::new(3, Purpose::Test).normals(sample, block);
        (0..len.div_ceil(4) as u32).flat_map(block).take(len).collect()
    }

    /// The mask as a matrix of 0 and 1.
    fn selection() -> Vec<f32> {
        let rows = (0..8).filter(|&p| MASK[p] == 1).flat_map(|p| p * CHANNELS..(p + 1) * CHANNELS);
        rows.flat_map(|i| (0..D).map(move |j| f32::from(u8::from(i == j)))).collect()
    }

    /// Of rank 3, with a diagonal as large as the rest, the paper's for the manifold, and none.
    fn priors() -> Vec<Gaussian> {
        let diags = [normals(D, 0).iter().map(|z| z * z).collect(), vec![1e-6; D], vec![0.0; D]];
        diags.into_iter().map(|diag| Gaussian::new(normals(D, 1), diag, normals(D * 3, 2)).unwrap()).collect()
    }

    fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
        assert_eq!(found.len(), expected.len());
        for (i, (f, e)) in found.iter().zip(expected).enumerate() {
            assert!(f.is_finite() && e.is_finite() && (f - e).abs() <= tolerance, "{i}: {f} {e}: {:e}", f - e);
        }
    }

    /// Woodbury's identity and the factor of S, two ways to the same numbers, down to a condition number of 1e8.
    #[test]
    fn a_mask_is_a_matrix() {
        for gaussian in priors() {
            for sigma_y in [1.0, 1e-2, 1e-3] {
                let mask = MaskSystem::new(&gaussian, &MASK, CHANNELS, sigma_y);
                let dense = DenseSystem::new(&gaussian, &selection(), sigma_y).unwrap();
                let x: Vec<f64> = (0..D)
                    .map(|i| gaussian.diag()[i].sqrt() * normals(D, 4)[i])
                    .zip(gaussian.factor().apply(&normals(3, 5)))
                    .map(|(a, b)| a + b)
                    .collect();
                let noise = normals(9, 6);
                let r: Vec<f64> = mask.forward(&x).iter().zip(noise).map(|(x, z)| x + sigma_y * z).collect();
                assert_close(&mask.forward(&x), &dense.forward(&x), 0.0);
                // S errs by 1e-16 |S|, |S| < 100, and the gain with it by 1e-14 |S⁻¹ r| with |S⁻¹ r| about 3/σ_y
                assert_close(&mask.gain(&r), &dense.gain(&r), 1e-10);
                // rᵀ S⁻¹ r errs by 1e-14 |S⁻¹ r|², at most 1e-14 · 1e7, and so does ln det S with |S⁻¹| = 1e6
                assert_close(&[mask.log_density(&r)], &[dense.log_density(&r)], 1e-6);
                // V[x | y] errs by 1e-14 times the gain's square
                assert_close(&[mask.variance()], &[dense.variance()], 1e-10);
                let v = Matrix::from_fn(2, D, |l, i| normals(2 * D, 7)[l * D + i]);
                let (mut a, mut b) = (v.clone(), v.clone());
                mask.add_covariance_product(&v, &mut a);
                dense.add_covariance_product(&v, &mut b);
                assert_close(a.as_slice(), b.as_slice(), 1e-10);
            }
        }
    }

    /// With U = 1 u and D = 0, Sherman and Morrison's formula gives every number to the last digit.
    #[test]
    fn one_factor_in_closed_form() {
        let (u, sigma_y, m) = (2.0f64, 1e-3f64, 9.0);
        let gaussian = Gaussian::new(vec![0.0; D], vec![0.0; D], vec![u; D]).unwrap();
        let mask = MaskSystem::new(&gaussian, &MASK, CHANNELS, sigma_y);
        let r: Vec<f64> = normals(9, 8).iter().map(|z| 1.0 + sigma_y * z).collect();
        let (sum, squares): (f64, f64) = (r.iter().sum(), r.iter().map(|r| (r - 1.0).powi(2)).sum());
        let precision = sigma_y * sigma_y + m * u * u;
        // a dozen roundings of sums of nine numbers near 1
        assert_close(&mask.gain(&r), &[u * u * sum / precision; D], 1e-14);
        let variance = u * u * sigma_y * sigma_y / precision;
        assert!((mask.variance() / (D as f64 * variance) - 1.0).abs() < 1e-12, "{}", mask.variance());
        // |r|² - u² (Σ r)² / (σ_y² + m u²), as a variance around the mean, which does not cancel
        let mean = sum / m;
        let distance = (squares - m * (mean - 1.0).powi(2)) / (sigma_y * sigma_y) + m * mean * mean / precision;
        let log_det = 8.0 * (sigma_y * sigma_y).ln() + precision.ln();
        let expected = -0.5 * (distance + log_det + m * std::f64::consts::TAU.ln());
        // r - U w rounds at 1e-16 of 1, squared over σ_y²: 2 · 1e-16 · 1e-3 / 1e-6
        assert!((mask.log_density(&r) - expected).abs() < 1e-11, "{} {expected}", mask.log_density(&r));
    }

    #[test]
    fn nothing_observed_leaves_the_prior() {
        for gaussian in priors() {
            let mask = MaskSystem::new(&gaussian, &[0; 8], CHANNELS, 1e-3);
            assert_close(&mask.gain(&[]), &[0.0; D], 0.0);
            assert_close(&[mask.log_density(&[])], &[0.0], 0.0);
            let v = Matrix::scaled_identity(D, 1.0);
            let mut product = Matrix::zeros(D, D);
            mask.add_covariance_product(&v, &mut product);
            assert_close(product.as_slice(), gaussian.covariance().as_slice(), 1e-13);
        }
    }
}
