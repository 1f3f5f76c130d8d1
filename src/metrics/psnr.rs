//! How close restored images are to the truth.

use crate::data::Samples;
use crate::run::moments::Moments;
use crate::{Error, Result};

/// From black to white.
pub const RANGE: f64 = 4.0;

/// Mean squared difference.
pub fn mean_squared_error(x: &[f32], truth: &[f32]) -> f64 {
    x.iter().zip(truth).map(|(x, t)| (f64::from(*x) - f64::from(*t)).powi(2)).sum::<f64>() / truth.len() as f64
}

/// Peak signal-to-noise ratio, 10 lg(4²/MSE), in dB.
pub fn psnr(x: &[f32], truth: &[f32]) -> f64 {
    10.0 * (RANGE * RANGE / mean_squared_error(x, truth)).log10()
}

/// Posterior means against the truth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Restoration {
    /// Draws of each image.
    pub draws: usize,
    /// Images of which no draw is finite; they count in none of the numbers.
    pub lost: usize,
    /// Mean squared error of the posterior means.
    pub mse: f64,
    /// Mean over the images of the PSNR of their posterior mean, in dB.
    pub psnr: f64,
    /// Root of the mean variance of the draws of an image: of the size of the error, if they are calibrated. NaN for one draw.
    pub spread: f64,
}

/// Compares the mean of the finite draws of each image with the truth.
///
/// # Shapes
/// `truth` (N, H, W, C); `samples` (N K, H, W, C), the K draws of an image adjacent.
///
/// # Errors
/// A mismatch when the extents do not fit, or no draw is finite.
pub fn restoration(samples: &Samples<f32>, truth: &Samples<f32>) -> Result<Restoration> {
    let n = truth.shape.n;
    if samples.shape.with_n(n) != truth.shape || samples.shape.n == 0 || !samples.shape.n.is_multiple_of(n) {
        let expected = format!("K draws of each, (K {n}, ..) of extents {:?}", truth.shape);
        return Err(Error::mismatch("samples of the truth", expected, format_args!("{:?}", samples.shape)));
    }
    let draws = samples.shape.n / n;
    let (mut mse, mut ratios, mut variance, mut count) = (0.0, 0.0, 0.0, 0usize);
    for i in 0..n {
        let mut moments = Moments::new(truth.shape.row());
        let rows = (0..draws).map(|k| samples.row(i * draws + k));
        rows.filter(|x| x.iter().all(|v| v.is_finite())).for_each(|x| moments.add(x));
        if moments.count() == 0 {
            continue;
        }
        let mean: Vec<f32> = moments.mean().map(|m| m as f32).collect();
        mse += mean_squared_error(&mean, truth.row(i));
        ratios += psnr(&mean, truth.row(i));
        variance += moments.std().map(|s| s * s).sum::<f64>() / truth.shape.row() as f64;
        count += 1;
    }
    if count == 0 {
        return Err(Error::NonFinite { place: "every draw".to_owned() });
    }
    let of = count as f64;
    Ok(Restoration { draws, lost: n - count, mse: mse / of, psnr: ratios / of, spread: (variance / of).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Shape;

    fn of(n: usize, data: &[f32]) -> Samples<f32> {
        Samples::new(Shape::rows(n, 2), data.to_vec())
    }

    #[test]
    fn a_quarter_of_the_range_is_twelve_decibels() {
        assert!((psnr(&[1.0, -1.0], &[0.0, 0.0]) - 20.0 * 4f64.log10()).abs() < 1e-12);
    }

    #[test]
    fn the_mean_of_the_finite_draws_counts() {
        let truth = of(3, &[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
        let lost = f32::NAN;
        let samples = of(6, &[0.5, -0.5, 1.5, 0.5, 2.0, 2.0, lost, 2.0, lost, 0.0, 0.0, lost]);
        let found = restoration(&samples, &truth).unwrap();
        // means (1, 0) and (2, 2): squared errors 1/2 and 1; of the second, one draw is left
        assert_eq!((found.draws, found.lost), (2, 1));
        assert!((found.mse - 0.75).abs() < 1e-12);
        assert!((found.psnr - 10.0 * (16f64.log10() + 0.5 * 2f64.log10())).abs() < 1e-12, "{}", found.psnr);
        assert!(found.spread.is_nan());
    }

    #[test]
    fn spread_is_the_std_of_draws() {
        let found = restoration(&of(4, &[1.0, 0.0, -1.0, 0.0, 3.0, 2.0, 1.0, 2.0]), &of(2, &[0.0; 4])).unwrap();
        assert!((found.spread - 1.0).abs() < 1e-12, "{}", found.spread); // variances (2, 0), (2, 0)
    }

    #[test]
    fn draws_that_do_not_fit_are_refused() {
        assert!(restoration(&of(3, &[0.0; 6]), &of(2, &[0.0; 4])).is_err());
        assert!(restoration(&of(2, &[f32::NAN; 4]), &of(2, &[0.0; 4])).is_err());
    }
}
