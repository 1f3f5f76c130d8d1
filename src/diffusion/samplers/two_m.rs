//! Second order multistep: Lu et al., *DPM-Solver++*, 2022, algorithm 2 and its SDE form.

use super::Weights;

/// x_s = e x_t + (1 - e) D, e = σ_s/σ_t, D the extrapolated estimate. Deterministic: as [`super::ddim`], it keeps of its start an
/// error of up to |E\[x | y\] - μ_x|/σ(1) posterior standard deviations.
pub(super) fn step(sigma_prev: Option<f64>, sigma_t: f64, sigma_s: f64) -> Weights {
    let e = sigma_s / sigma_t;
    let (now, before) = extrapolation(sigma_prev, sigma_t, sigma_s);
    Weights { x: e, x_hat: (1.0 - e) * now, x_hat_prev: (1.0 - e) * before, noise: 0.0 }
}

/// x_s = e² x_t + (1 - e²) D + σ_s √(1 - e²) ε.
pub(super) fn step_sde(sigma_prev: Option<f64>, sigma_t: f64, sigma_s: f64) -> Weights {
    let e2 = (sigma_s / sigma_t).powi(2);
    let (now, before) = extrapolation(sigma_prev, sigma_t, sigma_s);
    Weights { x: e2, x_hat: (1.0 - e2) * now, x_hat_prev: (1.0 - e2) * before, noise: sigma_s * (1.0 - e2).sqrt() }
}

/// D = (1 + 1/2r) x̂ - 1/2r x̂_prev, with r the ratio of the last step of ln σ to this one; D = x̂ in the first step.
fn extrapolation(sigma_prev: Option<f64>, sigma_t: f64, sigma_s: f64) -> (f64, f64) {
    sigma_prev.map_or((1.0, 0.0), |sigma_prev| {
        let r = (sigma_prev / sigma_t).ln() / (sigma_t / sigma_s).ln();
        (1.0 + 0.5 / r, -0.5 / r)
    })
}

#[cfg(test)]
mod tests {
    use super::extrapolation;

    #[test]
    fn extrapolates_a_line_to_the_middle_of_the_step() {
        let line = |sigma: f64| 0.3 - 1.7 * sigma.ln();
        for (sigma_prev, sigma_t, sigma_s) in [(8.0, 4.0, 2.0), (9.0, 4.0, 3.1), (5.0, 4.0, 0.2)] {
            let (now, before) = extrapolation(Some(sigma_prev), sigma_t, sigma_s);
            let middle = line(f64::sqrt(sigma_t * sigma_s));
            assert!((now * line(sigma_t) + before * line(sigma_prev) - middle).abs() < 1e-13); // a few roundings
        }
        let (now, before) = extrapolation(Some(8.0), 4.0, 2.0);
        assert!((now - 1.5).abs() + (before + 0.5).abs() < 1e-15); // a uniform grid of ln σ
    }
}
