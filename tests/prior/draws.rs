//! Draws of the prior and of posteriors against the closed form, and their bits.

use super::oracle::{D, IMAGE, Operator, assert_moments, exact, observe, samples, stream, truth, with_threads};
use diem::backend::cpu::{Cpu, Options};
use diem::prior::{draw_posterior, draw_posterior_ddim, draw_prior};

#[test]
fn draws_of_the_prior_have_its_moments_and_the_bits_of_their_number() {
    let (prior, all) = (truth(), with_threads(1, || draw_prior(&truth(), 0..10_000, stream())));
    assert_moments(&all, prior.mean(), &prior.covariance(), 0.0);
    assert_eq!(with_threads(3, || draw_prior(&prior, 17..40, stream())), all[17 * D..40 * D]);
}

#[test]
fn draws_have_the_posteriors_moments() {
    let images = samples(&truth(), 3);
    for operator in [Operator::Masks, Operator::Projections, Operator::RankDeficient] {
        for sigma_y in [0.3, 1e-2, 1e-3] {
            let observations = observe(&images, operator, sigma_y);
            let draws = 10_000;
            let x = draw_posterior(&truth(), &observations, IMAGE, 2 * draws..3 * draws, draws, stream()).unwrap();
            let exact = exact(&truth(), &observations, 2);
            assert_moments(&x, &exact.mean, &exact.cov, 0.0);
        }
    }
}

/// Draws of the posteriors of all observations are samples of the prior; the noise of `observe` has the same seed.
#[test]
fn over_all_observations_draws_are_of_the_prior() {
    let prior = truth();
    let observations = observe(&samples(&prior, 8_000), Operator::Masks, 0.5);
    let x = draw_posterior(&prior, &observations, IMAGE, 0..8_000, 1, super::oracle::stream()).unwrap();
    assert_moments(&x, prior.mean(), &prior.covariance(), 0.0);
}

#[test]
fn bits_are_those_of_the_number() {
    let images = samples(&truth(), 6);
    for operator in [Operator::Masks, Operator::SharedMask, Operator::Projections] {
        let observations = observe(&images, operator, 1e-3);
        let draw = |range| draw_posterior(&truth(), &observations, IMAGE, range, 3, stream()).unwrap();
        let all = with_threads(1, || draw(0..18));
        for range in [0..1, 2..7, 7..18] {
            assert_eq!(with_threads(3, || draw(range.clone())), all[range.start * D..range.end * D], "{range:?}");
        }
        assert_ne!(all[..D], all[D..2 * D]);
    }
}

/// The paper's route, whose discretisation costs up to 1.1% of the std at 256 steps; twice that is allowed.
#[test]
fn ddim_agrees_within_its_discretisation() {
    let observations = observe(&samples(&truth(), 2), Operator::Masks, 1e-2);
    let backend = Cpu::new(Options::default()).unwrap();
    let draws = 4_000;
    let draw =
        |range| draw_posterior_ddim(&backend, &truth(), &observations, IMAGE, (range, draws), 256, stream()).unwrap();
    let x = draw(draws..2 * draws);
    let exact = exact(&truth(), &observations, 1);
    assert_moments(&x, &exact.mean, &exact.cov, 0.025);
    assert_eq!(draw(draws + 5..draws + 7), x[5 * D..7 * D]);
}
