//! Mean and standard deviation of many samples in the memory of one.

use crate::backend::Real;

/// Running moments of each of D numbers (Welford, 1962), in f64.
pub struct Moments {
    count: usize,
    mean: Vec<f64>,
    /// Sum of the squared differences from the mean.
    squares: Vec<f64>,
}

impl Moments {
    /// Of D numbers, none seen so far.
    pub fn new(d: usize) -> Self {
        Self { count: 0, mean: vec![0.0; d], squares: vec![0.0; d] }
    }
    /// Takes in one sample of D numbers.
    pub fn add<T: Real>(&mut self, x: &[T]) {
        assert_eq!(x.len(), self.mean.len(), "numbers of a sample");
        self.count += 1;
        for ((mean, squares), x) in self.mean.iter_mut().zip(&mut self.squares).zip(x) {
            let delta = x.f64() - *mean;
            *mean += delta / self.count as f64;
            *squares += delta * (x.f64() - *mean);
        }
    }
    /// Samples seen.
    pub fn count(&self) -> usize {
        self.count
    }
    /// The mean; NaN when nothing was seen.
    pub fn mean(&self) -> impl Iterator<Item = f64> {
        self.mean.iter().map(|&m| if self.count > 0 { m } else { f64::NAN })
    }
    /// The unbiased standard deviation; NaN below two samples.
    pub fn std(&self) -> impl Iterator<Item = f64> {
        let degrees = if self.count > 1 { (self.count - 1) as f64 } else { f64::NAN };
        self.squares.iter().map(move |s| (s / degrees).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_two_passes_far_from_zero() {
        // Around 1e6 the textbook one-pass formula in f64 would lose all digits of a std of 1e-3.
        let x: Vec<f64> = (0..7).map(|i| 1e6 + 1e-3 * f64::from(i * i % 5)).collect();
        let mut moments = Moments::new(1);
        x.iter().for_each(|&x| moments.add(&[x]));
        let mean = x.iter().sum::<f64>() / 7.0;
        let std = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 6.0).sqrt();
        let (m, s) = (moments.mean().next().unwrap(), moments.std().next().unwrap());
        assert!(m.is_finite() && s.is_finite());
        assert!((m - mean).abs() < 1e-9, "{m} {mean}"); // 1e6 · 2⁻⁵² · 7 is 1.6e-9; the sums here are exact to less
        assert!((s / std - 1.0).abs() < 1e-6, "{s} {std}"); // rounding of the inputs' differences: 1e-10 / 1e-3
    }

    #[test]
    fn nothing_gives_nan() {
        let mut moments = Moments::new(2);
        assert!(moments.mean().all(f64::is_nan));
        moments.add(&[1f32, 2.0]);
        assert!(moments.mean().eq([1.0, 2.0]) && moments.std().all(f64::is_nan));
    }
}
