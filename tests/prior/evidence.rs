//! The log-evidence against dense algebra.

use super::oracle::{IMAGE, Operator, exact, observe, samples, truth};
use diem::prior::log_evidence;

#[test]
fn evidence_is_the_dense_density() {
    let images = samples(&truth(), 9);
    for operator in [Operator::Masks, Operator::SharedMask, Operator::Projections, Operator::RankDeficient] {
        for sigma_y in [0.3, 1e-2, 1e-3] {
            let observations = observe(&images, operator, sigma_y);
            let expected = (0..9).map(|n| exact(&truth(), &observations, n).log_evidence).sum::<f64>() / 9.0;
            let found = log_evidence(&truth(), &observations, IMAGE).unwrap();
            // of the rank-deficient matrix S⁻¹ is 1e6 along two directions, and y is rounded to f32: both sides see the same
            // y, and err by 1e-16 times the condition number, at most 1e8
            assert!(
                (found - expected).abs() <= 1e-8 * expected.abs().max(1.0),
                "{operator:?} {sigma_y}: {found} {expected}"
            );
        }
    }
}
