//! The noise schedule: σ_t and the time grid.

use crate::{Error, Result};

/// Variance exploding noise, x_t = x + σ_t z, with σ_t = σ_min^(1-t) σ_max^t.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    sigma_min: f64,
    sigma_max: f64,
}

impl Default for Schedule {
    /// From 1e-3 to 1e2: images in [-2, 2].
    fn default() -> Self {
        Self { sigma_min: 1e-3, sigma_max: 1e2 }
    }
}

impl Schedule {
    /// From `sigma_min` at t = 0 to `sigma_max` at t = 1.
    ///
    /// # Errors
    /// Unless 0 < `sigma_min` < `sigma_max` < ∞.
    pub fn new(sigma_min: f64, sigma_max: f64) -> Result<Self> {
        if 0.0 < sigma_min && sigma_min < sigma_max && sigma_max.is_finite() {
            Ok(Self { sigma_min, sigma_max })
        } else {
            let found = format!("sigma_min {sigma_min}, sigma_max {sigma_max}");
            Err(Error::mismatch("noise schedule", "0 < sigma_min < sigma_max, both finite", found))
        }
    }
    /// σ_t for t in [0, 1].
    pub fn sigma(self, t: f64) -> f64 {
        self.sigma_min.powf(1.0 - t) * self.sigma_max.powf(t)
    }
    /// σ at t = 1, 1 - 1/T, .., 1/T, 0: T + 1 values for T `steps`.
    pub fn grid(self, steps: usize) -> Vec<f64> {
        (0..=steps).rev().map(|i| self.sigma(i as f64 / steps as f64)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_runs_down_from_end_to_end() {
        for steps in [1, 2, 7, 256] {
            let grid = Schedule::default().grid(steps);
            assert_eq!((grid.len(), grid[0], grid[steps]), (steps + 1, 1e2, 1e-3));
            let ratio = 1e5f64.powf(1.0 / steps as f64);
            for pair in grid.windows(2) {
                // two powers of relative error 1e-15
                assert!((pair[0] / pair[1] / ratio - 1.0).abs() < 1e-14);
            }
        }
    }

    #[test]
    fn impossible_ends_are_refused() {
        for (low, high) in [(0.0, 1.0), (-1.0, 1.0), (1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (1e-3, f64::INFINITY)] {
            assert!(Schedule::new(low, high).is_err(), "{low} {high}");
        }
    }
}
