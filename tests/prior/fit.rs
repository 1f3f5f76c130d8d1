//! EM from observations alone.

use super::oracle::{D, IMAGE, Operator, distance, observe, samples, stream, truth, with_threads};
use diem::diffusion::Gaussian;
use diem::linalg::{Matrix, symmetric_eigen};
use diem::prior::{Fit, Settings, Update, fit, log_evidence};

fn settings(rank: usize, iterations: usize) -> Settings {
    Settings { rank, iterations, tolerance: 0.0, ..Settings::default() }
}

fn run(observations: &diem::data::Observations, settings: &Settings) -> Fit {
    let mut told = Vec::new();
    let fit = fit(observations, IMAGE, settings, stream(), &mut |k, evidence| told.push((k, evidence))).unwrap();
    assert!(told.into_iter().eq(fit.evidence.iter().copied().enumerate()));
    fit
}

#[test]
fn evidence_never_falls_under_closed_form_updates() {
    let images = samples(&truth(), 200);
    for operator in [Operator::Masks, Operator::SharedMask, Operator::Projections, Operator::RankDeficient] {
        for (rank, sigma_y) in [(1, 0.1), (2, 1e-3), (4, 1e-2), (D, 1e-2)] {
            let observations = observe(&images, operator, sigma_y);
            let Fit { gaussian, evidence } = run(&observations, &settings(rank, 20));
            assert!(evidence.iter().all(|e| e.is_finite()) && evidence.len() > 3, "{evidence:?}");
            for (k, pair) in evidence.windows(2).enumerate() {
                // rounding: see `evidence_is_the_dense_density`
                let rise = pair[1] - pair[0];
                assert!(rise >= -1e-8 * pair[1].abs(), "{operator:?} rank {rank}, iteration {}: {rise:e}", k + 1);
            }
            assert!(evidence[1] - evidence[0] > 0.1, "{operator:?}: {evidence:?}");
            let last = log_evidence(&gaussian, &observations, IMAGE).unwrap();
            assert_eq!(last, *evidence.last().unwrap(), "the evidence is that of the prior");
        }
    }
}

/// With A = I the observations are N(μ, (δ + σ_y²) I + U Uᵀ): their own PPCA is the maximum, in closed form.
#[test]
fn em_reaches_the_closed_form_maximum() {
    let sigma_y = 0.1;
    let images = samples(&truth(), 500);
    let observations = observe(&images, Operator::Identity, sigma_y);
    let y: Vec<f64> = observations.y().data.iter().map(|y| f64::from(*y)).collect();
    let y = Matrix::from_fn(500, D, |i, j| y[i * D + j]);
    let mean = y.apply_transpose(&[1.0 / 500.0; 500]);
    let centred = Matrix::from_fn(500, D, |i, j| (y[(i, j)] - mean[j]) / 500f64.sqrt());
    let eigen = symmetric_eigen(centred.transpose_times(&centred));
    let noisy = eigen.values[2..].iter().sum::<f64>() / (D - 2) as f64;
    let factor = (0..D * 2).map(|k| (eigen.values[k % 2] - noisy).sqrt() * eigen.vectors[(k % 2, k / 2)]).collect();
    let best = Gaussian::new(mean, vec![noisy - sigma_y * sigma_y; D], factor).unwrap();

    let best_evidence = log_evidence(&best, &observations, IMAGE).unwrap();
    // the moments of x, and those of the factors; both converge linearly, and end at the rounding of the evidence, in which an
    // error of the prior is squared
    for operator in [Operator::Identity, Operator::AllPixels] {
        let found = run(&observe(&images, operator, sigma_y), &settings(2, 300));
        let short = best_evidence - found.evidence.last().unwrap();
        assert!((-1e-12..1e-11).contains(&short), "{operator:?}: {short:e} below the maximum");
        let error = distance(&found.gaussian.covariance(), &best.covariance());
        assert!(error < 1e-5, "{operator:?}: {error:e}");
    }
}

/// D = 16, R = 2, half of the pixels deleted, and nothing else seen.
#[test]
fn a_known_gaussian_is_recovered_to_the_statistical_error() {
    let (truth, count) = (truth(), 4_096);
    let observations = observe(&samples(&truth, count), Operator::Masks, 1e-2);
    let found = run(&observations, &settings(2, 400));
    // Wilks: twice the log-likelihood ratio of maximum and truth is χ² with as many degrees as the model has parameters, 16 of
    // the mean, 31 of U up to a rotation, 1 of δ: 48 ± 5 · √96 at five standard deviations
    let ratio =
        2.0 * count as f64 * (found.evidence.last().unwrap() - log_evidence(&truth, &observations, IMAGE).unwrap());
    assert!((10.0..97.0).contains(&ratio), "likelihood ratio {ratio}");
    // an element of the covariance is seen in a quarter of the images: estimated alone, element by element, it would err by
    // (c_ii c_jj + c_ij²) / (N/4), and the model ties all of them together
    let cov = truth.covariance();
    let trace: f64 = (0..D).map(|i| cov[(i, i)]).sum();
    let bound = ((trace * trace / cov.squared_norm() + 1.0) / (count as f64 / 4.0)).sqrt();
    let error = distance(&found.gaussian.covariance(), &cov);
    assert!(error < bound, "covariance {error}, elementwise estimates {bound}");
    for i in 0..D {
        // a mean of N/2 numbers
        let error = (found.gaussian.mean()[i] - truth.mean()[i]) / cov[(i, i)].sqrt();
        assert!(error.abs() < 5.0 / (count as f64 / 2.0).sqrt(), "mean {i}: {error}");
    }
}

/// The paper's 16 iterations. Filling in half of the pixels halves what δ = 1 is above its maximum of 1e-3 in each of them at worst,
/// which leaves ε = 2⁻¹⁶/1e-3 = 1.5% of it, and the six directions that are observed beside the two of U are short of the
/// maximum by ε²/4 each: 3.4e-4 in all.
#[test]
fn sixteen_iterations_are_enough_for_masks() {
    let truth = Gaussian::new(truth().mean().to_vec(), vec![1e-3; D], truth().factor().as_slice().to_vec()).unwrap();
    let observations = observe(&samples(&truth, 500), Operator::Masks, 1e-3);
    let last = |iterations| *run(&observations, &settings(2, iterations)).evidence.last().unwrap();
    let (sixteen, many) = (last(16), last(500));
    assert!((0.0..3.4e-4).contains(&(many - sixteen)), "{sixteen} of {many}");
}

#[test]
fn stochastic_updates_reach_the_same_evidence() {
    let (truth, count) = (truth(), 1_000);
    let observations = observe(&samples(&truth, count), Operator::Masks, 0.1);
    let exact = *run(&observations, &settings(2, 40)).evidence.last().unwrap();
    // one draw each adds to every parameter an error like the data's own: 48 / (2 N) of evidence in an iteration, of which the
    // next ones keep some; the DDIM steps lose 1% of the std, which costs 16 · 1e-4
    for (update, iterations, bound) in [(Update::Draws, 40, 0.1), (Update::Ddim, 8, 0.3)] {
        let settings = Settings { update, steps: 64, tolerance: 1e-3, ..settings(2, iterations) };
        let fit = run(&observations, &settings);
        let found = *fit.evidence.last().unwrap();
        assert!((found - exact).abs() < bound, "{update:?}: {found} {exact} of {:?}", fit.evidence);
    }
}

#[test]
fn bits_do_not_depend_on_threads() {
    for operator in [Operator::Masks, Operator::Projections] {
        let observations = observe(&samples(&truth(), 150), operator, 1e-2);
        for update in [Update::ClosedForm, Update::Draws] {
            let settings = Settings { update, ..settings(2, 3) };
            let [one, three] = [1, 3].map(|threads| with_threads(threads, || run(&observations, &settings)));
            assert_eq!(one, three);
        }
    }
}

#[test]
fn observations_beyond_the_limit_do_not_count() {
    let images = samples(&truth(), 150);
    let few = samples(&truth(), 100);
    let settings = Settings { observations: 100, ..settings(2, 3) };
    let [limited, all] = [images, few].map(|images| run(&observe(&images, Operator::Masks, 1e-2), &settings));
    assert_eq!(limited, all);
}
