//! The learning rate, and the decay of the moving average, step by step.

use serde::{Deserialize, Serialize};

/// How the learning rate goes from its first value to its last.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays where it is.
    #[default]
    Constant,
    /// lr + (lr_end - lr) n/T.
    Linear,
    /// lr (lr_end/lr)^(n/T).
    Exponential,
}

impl Schedule {
    /// The rate after `step` of `total` steps, on the way from `lr` to `lr_end`.
    pub fn rate(self, (lr, lr_end): (f64, f64), step: u64, total: u64) -> f64 {
        let share = (step as f64 / total.max(1) as f64).min(1.0);
        match self {
            Self::Constant => lr,
            Self::Linear => lr + (lr_end - lr) * share,
            Self::Exponential => lr * (lr_end / lr).powf(share),
        }
    }
}

/// What the rate is multiplied by after `step` steps while it warms up: (step + 1)/(warmup + 1), up to 1.
pub fn warm_up(step: u64, warmup: u64) -> f64 {
    ((step as f64 + 1.0) / (warmup as f64 + 1.0)).min(1.0)
}

/// The decay of update number `n`, from 1, of the moving average: min(decay, (1 + n)/(10 + n)), so that the average forgets
/// the first weights however short the run is.
pub fn ema_decay(decay: f64, n: u64) -> f64 {
    decay.min((1.0 + n as f64) / (10.0 + n as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_start_and_end_where_they_are_told() {
        for schedule in [Schedule::Linear, Schedule::Exponential] {
            let rate = |step| schedule.rate((1e-3, 1e-6), step, 100);
            assert_eq!(rate(0), 1e-3);
            // two roundings of 1e-16 of the largest term
            assert!((rate(100) - 1e-6).abs() < 1e-18 && rate(200) == rate(100), "{schedule:?}: {}", rate(100));
            assert!((0..100).all(|step| rate(step + 1) < rate(step)), "{schedule:?}");
        }
        assert!((Schedule::Linear.rate((1e-3, 1e-6), 50, 100) - 5.005e-4).abs() < 1e-18);
        assert!((Schedule::Exponential.rate((1e-3, 1e-5), 50, 100) - 1e-4).abs() < 1e-18);
        assert_eq!(Schedule::Constant.rate((1e-3, 1e-6), 50, 100), 1e-3);
    }

    #[test]
    fn warm_up_ends_at_one() {
        assert_eq!(
            (warm_up(0, 0), warm_up(0, 3), warm_up(2, 3), warm_up(3, 3), warm_up(9, 3)),
            (1.0, 0.25, 0.75, 1.0, 1.0)
        );
    }

    #[test]
    fn the_average_warms_up() {
        assert_eq!(ema_decay(0.9999, 1), 2.0 / 11.0);
        assert_eq!(ema_decay(0.9999, 1_000_000), 0.9999);
        assert_eq!(ema_decay(0.0, 5), 0.0);
    }
}
