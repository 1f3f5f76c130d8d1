//! The iterations: over a falling sequence of λ, each warm-started with the potentials of the one before.

use super::cost::Cost;
use super::sweep::{Potentials, Sums, scale_columns, scale_rows};
use super::{Settings, Transport};

/// λ falls by this factor from level to level.
const FACTOR: f64 = 0.5;

/// Iterations between two looks at the error, each of which costs one more.
const LOOK: usize = 20;

/// Iterations at every λ above the last, at most: they need not be solved well.
const LEVEL: usize = LOOK;

/// Over-relaxation of both scalings: ω rises from 1, as 2 - 1/(1 + k) in iteration k, to this. Plain Sinkhorn, ω = 1, takes
/// tens of thousands of iterations at λ = 1e-3 times the spread of the samples; this takes hundreds.
///
/// # Reference
/// Thibault, Chizat, Dossal and Papadakis, Overrelaxed Sinkhorn-Knopp algorithm for regularized optimal transport, 2021.
const OMEGA: f64 = 1.98;

/// Solves by alternate scalings of rows and columns.
pub fn transport(cost: &Cost, settings: Settings) -> Transport {
    let (mut since, mut before) = (0_u32, f64::INFINITY); // iterations since ω was 1, and the error at the last look
    let (mut potentials, iterations) = descend(cost, settings, |lambda, potentials, count| {
        if !(count + 1).is_multiple_of(LOOK) {
            since = if count == 0 { 1 } else { since + 1 };
            let omega = (2.0 - 1.0 / f64::from(since)).min(OMEGA);
            let sums = scale_rows(cost, lambda, potentials, omega);
            scale_columns(cost, lambda, potentials, &sums.columns, omega);
            return f64::INFINITY;
        }
        let f = potentials.f.clone(); // looking must not stop the over-relaxation
        let error = deviation(&scale_rows(cost, lambda, potentials, 1.0).columns);
        potentials.f = f;
        if error > before && count + 1 > LOOK {
            since = 0; // it has overshot: begin with ω = 1 again
        }
        before = error;
        error
    });
    let sums = scale_rows(cost, settings.lambda, &mut potentials, 1.0); // all rows right
    potentials.transport(&sums, deviation(&sums.columns), 1.0, iterations, settings)
}

/// Solves between a sample and itself, where both potentials are the same: half of every row's correction for both of them
/// converges in a few iterations.
pub fn own_transport(cost: &Cost, settings: Settings) -> Transport {
    let (mut potentials, iterations) = descend(cost, settings, |lambda, potentials, _| {
        let sums = scale_rows(cost, lambda, potentials, 0.5);
        potentials.g.copy_from_slice(&potentials.f);
        deviation(&sums.rows)
    });
    let sums = scale_rows(cost, settings.lambda, &mut potentials, 0.0); // as they are
    let mass = sums.rows.iter().sum::<f64>() / cost.rows as f64;
    potentials.transport(&sums, deviation(&sums.rows), mass, iterations, settings)
}

/// Runs `iterate` (at λ, on the potentials, its number within the level), which gives the error that it has found, at every
/// level until that is small. The potentials at the last level, and all iterations.
fn descend(
    cost: &Cost,
    settings: Settings,
    mut iterate: impl FnMut(f64, &mut Potentials, usize) -> f64,
) -> (Potentials, usize) {
    let mut potentials = Potentials { f: vec![0.0; cost.rows], g: vec![0.0; cost.cols] };
    let (largest, mut iterations) = (cost.max(), 0);
    let above = (0..).map(|k| settings.lambda * FACTOR.powi(-k)).take_while(|lambda| *lambda < largest).count();
    for level in (0..=above as i32).rev() {
        let most = if level == 0 { settings.iterations } else { LEVEL };
        let lambda = settings.lambda * FACTOR.powi(-level);
        let solved = (0..most).find(|count| iterate(lambda, &mut potentials, *count) <= settings.tolerance);
        iterations += solved.map_or(most, |count| count + 1);
        if level > 0 {
            potentials.f.iter_mut().chain(&mut potentials.g).for_each(|x| *x /= FACTOR); // the same over a smaller λ
        }
    }
    (potentials, iterations)
}

impl Potentials {
    /// The result at potentials whose P has the given `sums` and `mass`.
    fn transport(&self, sums: &Sums, error: f64, mass: f64, iterations: usize, settings: Settings) -> Transport {
        let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
        let value = settings.lambda * (mean(&self.f) + mean(&self.g) - (mass - 1.0));
        Transport { cost: sums.cost, value, error, iterations, converged: error <= settings.tolerance }
    }
}

/// The mean of |x - 1|.
fn deviation(x: &[f64]) -> f64 {
    x.iter().map(|x| (x - 1.0).abs()).sum::<f64>() / x.len() as f64
}
