//! Observations in the basis in which a Gaussian prior's systems are small.

use crate::backend::Shape;
use crate::data::observations::{Applied, FilterF64};
use crate::data::{Measured, Observations, OperatorKind};
use crate::diffusion::Gaussian;
use crate::linalg::Matrix;
use crate::ops::fourier::{Hartley, Transform};
use crate::{Error, Result};
use std::borrow::Cow;
use std::f64::consts::TAU;

/// Observations y = A x + noise as their systems see them: of c = Q x, Q orthonormal, so that N(μ, δ I + U Uᵀ) becomes
/// N(Q μ, δ I + Q U (Q U)ᵀ).
///
/// - Pixel masks, matrices, blur and downsampling: Q = I.
/// - Masked k-space: Q is the transform of [`Hartley`], Aᵀ A = Qᵀ s Q with s = 0, 1/2 or 1. What y says of x is
///   z = s⁻¹ Q Aᵀ y = c + noise of variance σ_y²/s where s > 0: a mask of coefficients, "pixels" being the W frequencies along
///   the rows, with H coefficients each. What is left of y is noise alone, and counts in the evidence.
pub(super) struct Problem<'a> {
    pub observations: &'a Observations,
    image: Shape,
    basis: Option<Basis>,
}

struct Basis {
    hartley: Hartley,
    transform: Transform<f64>,
}

impl<'a> Problem<'a> {
    /// That of `observations` of images with the extents of `image`.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn new(observations: &'a Observations, image: Shape) -> Result<Self> {
        observations.check_image(image)?;
        let Shape { h, w, .. } = image;
        let basis = matches!(observations.measured(), Measured::Fourier(_))
            .then(|| Basis { hartley: Hartley::new(h, w), transform: Transform::new(h, w) });
        Ok(Self { observations, image, basis })
    }

    /// The prior of c of the prior of x.
    ///
    /// # Errors
    /// When it is of other images, or its diagonal is not one number in all bases.
    pub fn prior<'g>(&self, gaussian: &'g Gaussian) -> Result<Cow<'g, Gaussian>> {
        let d = self.image.row();
        if gaussian.mean().len() != d {
            let expected = format!("{d} elements, as the images have");
            return Err(Error::mismatch("Gaussian prior", expected, gaussian.mean().len()));
        }
        let delta = gaussian.diag()[0];
        let kind = self.observations.measured().kind();
        let any = matches!(kind, OperatorKind::Mask | OperatorKind::Dense);
        if !any && gaussian.diag().iter().any(|v| *v != delta) {
            let expected = format!("one value for all elements, as fitted ones have, for operator {}", kind.name());
            return Err(Error::mismatch("Gaussian prior, diag", expected, "several"));
        }
        self.turned(gaussian, Hartley::forward)
    }
    /// The prior of x of a prior of c.
    ///
    /// # Errors
    /// When a number is not finite.
    pub fn image_prior<'g>(&self, gaussian: &'g Gaussian) -> Result<Cow<'g, Gaussian>> {
        self.turned(gaussian, Hartley::inverse)
    }
    fn turned<'g>(
        &self,
        gaussian: &'g Gaussian,
        q: impl Fn(&Hartley, &[f64]) -> Vec<f64>,
    ) -> Result<Cow<'g, Gaussian>> {
        let Some(Basis { hartley, .. }) = &self.basis else { return Ok(Cow::Borrowed(gaussian)) };
        let (factor, mean) = (gaussian.factor(), q(hartley, gaussian.mean()));
        let columns: Vec<Vec<f64>> = (0..factor.cols())
            .map(|r| q(hartley, &(0..factor.rows()).map(|i| factor[(i, r)]).collect::<Vec<_>>()))
            .collect();
        let factor = Matrix::from_fn(factor.rows(), factor.cols(), |i, r| columns[r][i]);
        Gaussian::new(mean, gaussian.diag().to_vec(), factor.as_slice().to_vec()).map(Cow::Owned)
    }

    /// x of c.
    pub fn to_image(&self, c: Vec<f64>) -> Vec<f64> {
        match &self.basis {
            Some(basis) => basis.hartley.inverse(&c),
            None => c,
        }
    }

    /// Elements of c that are measured together: the channels of a pixel, or the coefficients of a frequency.
    pub fn channels(&self) -> usize {
        if self.basis.is_some() { self.image.h } else { self.image.c }
    }

    /// Standard deviation of the noise of observation `n`.
    pub fn sigma_y(&self, n: usize) -> f64 {
        let noise = self.observations.noise();
        noise[n % noise.len()]
    }

    /// The variance of the noise of each pixel, or frequency, in units of σ_y²; 0 where nothing was measured, and none for other operators.
    pub fn mask(&self, n: usize) -> Option<Cow<'_, [u8]>> {
        match self.observations.measured() {
            Measured::Mask(mask) => Some(Cow::Borrowed(mask.row(n))),
            Measured::Fourier(mask) => {
                let variance = |s: &f64| if *s > 0.0 { (1.0 / s) as u8 } else { 0 };
                Some(Hartley::eigenvalues(mask.row(n)).iter().map(variance).collect())
            }
            Measured::Dense(_) | Measured::Blur(_) | Measured::Downsample(_) => None,
        }
    }

    /// The filter of all observations, if it is one.
    pub fn filter(&self) -> Option<FilterF64> {
        match Applied::new(self.observations.measured(), self.image) {
            Applied::Filter(filter) => Some(filter),
            _ => None,
        }
    }

    /// How many different variances masks may have.
    pub fn levels(&self) -> usize {
        if self.basis.is_some() { 2 } else { 1 }
    }

    /// What was measured of observation `n`: y, or z with 0 where nothing was.
    pub fn y(&self, n: usize) -> Vec<f64> {
        let y: Vec<f64> = self.observations.y().row(n).iter().map(|y| f64::from(*y)).collect();
        let (Some(basis), Measured::Fourier(mask)) = (&self.basis, self.observations.measured()) else { return y };
        basis.coefficients(mask.row(n), &y)
    }

    /// ln p(y) - ln p(z) of observation `n`: what does not depend on the prior.
    ///
    /// A has the singular values √s, so that y is √s z in as many directions as there are s > 0, and noise in all others.
    pub fn surplus(&self, n: usize) -> f64 {
        let (Some(basis), Measured::Fourier(mask)) = (&self.basis, self.observations.measured()) else { return 0.0 };
        let (mask, h) = (mask.row(n), self.image.h);
        let y: Vec<f64> = self.observations.y().row(n).iter().map(|y| f64::from(*y)).collect();
        let mut explained = vec![0.0; y.len()];
        let x = basis.hartley.inverse(&basis.coefficients(mask, &y));
        basis.transform.forward(|column| mask[column] == 1, &x, &mut explained);
        let distance: f64 = y.iter().zip(explained).map(|(y, e)| (y - e).powi(2)).sum();
        let s = Hartley::eigenvalues(mask);
        let measured = s.iter().filter(|s| **s > 0.0);
        let numbers = 2 * mask.iter().filter(|m| **m == 1).count() - measured.clone().count();
        let variance = self.sigma_y(n).powi(2);
        let stretched: f64 = measured.map(|s| s.ln()).sum();
        -0.5 * (distance / variance + (h * numbers) as f64 * (TAU * variance).ln() + h as f64 * stretched)
    }
}

impl Basis {
    /// z = s⁻¹ Q Aᵀ y; 0 where s = 0.
    fn coefficients(&self, mask: &[u8], y: &[f64]) -> Vec<f64> {
        let mut x = vec![0.0; y.len() / 2];
        self.transform.adjoint(|column| mask[column] == 1, y, &mut x);
        let (mut z, s) = (self.hartley.forward(&x), Hartley::eigenvalues(mask));
        let h = z.len() / s.len();
        for (z, s) in z.chunks_exact_mut(h).zip(s) {
            z.iter_mut().for_each(|z| *z = if s > 0.0 { *z / s } else { 0.0 });
        }
        z
    }
}
