//! The paper's comparisons in small.

use diem::compare::figure2::Scene;
use diem::metrics::SinkhornSettings;

/// The paper's ordering, on two curves: Tweedie's covariance leads to the best posterior, then that of the Gaussian prior, then
/// that of N(0, I), then Σ_t.
#[test]
fn figure_2_has_the_papers_ordering() {
    for seed in 0..2 {
        let scene = Scene::new(seed).unwrap();
        let at = |level: usize, sigma: f64| {
            let found = scene.compare(level, sigma, 400, SinkhornSettings::default()).unwrap().divergences;
            let values = found.map(|divergence| divergence.map_or(f64::INFINITY, |divergence| divergence.value));
            println!("seed {seed}, sigma {sigma}: {values:?}");
            values
        };
        // where x_t tells the place on the curve, what it leaves open is along the curve, and only Tweedie's covariance is
        let [tweedie, prior, unit, sigma, zero] = at(1, 0.1);
        assert!(tweedie >= 1e-6 && 10.0 * tweedie < prior.min(unit).min(sigma).min(zero));
        // where it does not, the width of the curve counts
        let [tweedie, prior, unit, sigma, _] = at(3, 2.0);
        assert!(tweedie >= 1e-6 && tweedie < prior && prior < unit && unit < sigma && sigma.is_finite());
    }
}
