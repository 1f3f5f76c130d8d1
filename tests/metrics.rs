//! Distances between samples, against closed forms and brute force.

use diem::backend::Shape;
use diem::data::manifold::Manifold;
use diem::data::{Measured, Samples, corruption};
use diem::metrics::sinkhorn::transport;
use diem::metrics::{
    SinkhornSettings, observation_residual, predictive_score, sinkhorn_authors, sinkhorn_divergence,
    sliced_wasserstein, sliced_wasserstein_observations,
};
use diem::ops::noise::{Purpose, Stream};
use std::path::Path;

/// `n` samples of N(shift, scale² I) in `d` dimensions.
fn gaussian(n: usize, d: usize, scale: f64, shift: f64, seed: u64) -> Samples<f32> {
    let stream = Stream::new(seed, Purpose::Test);
    let normals = |k: usize| (0..d.div_ceil(4) as u32).flat_map(move |block| stream.normals(k as u32, block)).take(d);
    let data = (0..n).flat_map(normals).map(|z| (shift + scale * z) as f32).collect();
    Samples::new(Shape::rows(n, d), data)
}

fn settings(lambda: f64) -> SinkhornSettings {
    SinkhornSettings { lambda, tolerance: 1e-4, iterations: 20_000 }
}

fn stream(seed: u64) -> Stream {
    Stream::new(seed, Purpose::Test)
}

#[track_caller]
fn close(found: f64, expected: f64, bound: f64) {
    assert!(found.is_finite() && (found - expected).abs() <= bound, "{found}, expected {expected} ± {bound}");
}

/// Every permutation of 0 .. n, by Heap's algorithm.
fn permutations(n: usize) -> Vec<Vec<usize>> {
    fn heap(k: usize, p: &mut Vec<usize>, all: &mut Vec<Vec<usize>>) {
        if k <= 1 {
            return all.push(p.clone());
        }
        for i in 0..k {
            heap(k - 1, p, all);
            p.swap(if k.is_multiple_of(2) { i } else { 0 }, k - 1);
        }
    }
    let (mut p, mut all) = ((0..n).collect(), Vec::new());
    heap(n, &mut p, &mut all);
    all
}

#[test]
fn small_transports_are_those_of_the_best_assignment() {
    let (n, d) = (7, 3);
    for seed in 0..4 {
        let (u, v) = (gaussian(n, d, 1.0, 0.0, seed), gaussian(n, d, 1.0, 0.5, seed + 10));
        let distance =
            |i: usize, j: usize| -> f64 { u.row(i).iter().zip(v.row(j)).map(|(a, b)| f64::from(a - b).powi(2)).sum() };
        let cost = |p: &Vec<usize>| p.iter().enumerate().map(|(i, j)| distance(i, *j)).sum::<f64>() / n as f64;
        let best = permutations(n).iter().map(cost).fold(f64::INFINITY, f64::min);
        let found = transport(&u, &v, settings(1e-3)).unwrap();
        assert!(found.converged, "{found:?}");
        // entropy adds at most λ ln n to the cost; a share of 1e-4 of the mass at the wrong place, times distances below 40
        close(found.cost, best, 1e-3 * (n as f64).ln() + 4e-3);
        // KL(P ‖ u ⊗ v) of a permutation is ln n
        close(found.value, best + 1e-3 * (n as f64).ln(), 1e-3 * (n as f64).ln() + 4e-3);
    }
}

/// Between N(a, s² I) and N(b, t² I) in D dimensions (Janati, Muzellec, Peyré and Cuturi, 2020, theorem 1, whose σ² is λ/2), for
/// the cost ‖x - y‖² and λ KL(P ‖ u ⊗ v).
fn gaussian_transport(d: f64, shift: f64, s: f64, t: f64, lambda: f64) -> f64 {
    // per dimension: correlation c of the optimal coupling maximises 2c + (λ/2) ln(1 - c²/(s²t²))
    let c = 0.5 * ((4.0 * s * s * t * t + 0.25 * lambda * lambda).sqrt() - 0.5 * lambda);
    let kl = -0.5 * (1.0 - c * c / (s * s * t * t)).ln();
    d * (shift * shift + s * s + t * t - 2.0 * c + lambda * kl)
}

#[test]
fn gaussians_have_their_closed_form() {
    let (n, d, lambda) = (2000, 2, 0.5);
    let (u, v) = (gaussian(n, d, 1.0, 0.0, 1), gaussian(n, d, 0.6, 0.8, 2));
    let found = transport(&u, &v, settings(lambda)).unwrap();
    assert!(found.converged, "{found:?}");
    let expected = gaussian_transport(d as f64, 0.8, 1.0, 0.6, lambda);
    // the cost ‖a - b‖² has a standard error of about 2 · 0.8 √(d (1 + 0.36)/n) = 0.06; three of them
    close(found.value, expected, 0.18);
    let divergence = sinkhorn_divergence(&u, &v, settings(lambda)).unwrap();
    let own = |s| gaussian_transport(d as f64, 0.0, s, s, lambda);
    close(divergence.value, expected - 0.5 * (own(1.0) + own(0.6)), 0.18);
    assert!(divergence.converged);
}

#[test]
fn transports_are_symmetric_and_divergences_vanish_on_equals() {
    let (u, v) = (gaussian(150, 4, 1.0, 0.0, 3), gaussian(130, 4, 1.5, 0.3, 4));
    for lambda in [1.0, 0.1] {
        let [forth, back] = [(&u, &v), (&v, &u)].map(|(u, v)| transport(u, v, settings(lambda)).unwrap());
        assert!(forth.converged && back.converged, "{forth:?} {back:?}");
        // 1e-4 of the mass misplaced, by potentials that differ by at most the largest cost, below 100
        close(forth.value, back.value, 1e-2);
        let divergence = sinkhorn_divergence(&u, &v, settings(lambda)).unwrap();
        let back = sinkhorn_divergence(&v, &u, settings(lambda)).unwrap();
        close(divergence.value, back.value, 1e-2);
        assert!(divergence.value > 0.1, "{divergence:?}");
        let mut shuffled: Vec<usize> = (0..150).collect();
        shuffled.rotate_left(70);
        close(sinkhorn_divergence(&u, &u.gather(&shuffled), settings(lambda)).unwrap().value, 0.0, 1e-3);
    }
}

/// A shift of all points costs its square, whatever their distribution; far away and small, where exponents of 1e6 cancel.
#[test]
fn a_shift_costs_its_square() {
    let u = gaussian(300, 3, 10.0, 100.0, 5);
    let mut v = u.clone();
    v.data.iter_mut().for_each(|x| *x += 0.25);
    let found = transport(&u, &v, SinkhornSettings { iterations: 1000, ..Default::default() }).unwrap();
    assert!(found.converged, "{found:?}");
    // float32 holds 100 to 4e-6, so a shift of 0.25 to 3e-5 of itself; misplaced mass as above, times 1e-3
    close(found.cost, 3.0 * 0.0625, 1e-2);
}

#[test]
fn what_does_not_converge_says_so() {
    let (u, v) = (gaussian(200, 3, 1.0, 0.0, 6), gaussian(200, 3, 1.0, 1.0, 7));
    let hasty = SinkhornSettings { lambda: 1e-3, tolerance: 1e-6, iterations: 3 };
    let found = transport(&u, &v, hasty).unwrap();
    assert!(!found.converged && found.error > 1e-6 && found.cost.is_finite(), "{found:?}");
    assert!(!sinkhorn_divergence(&u, &v, hasty).unwrap().converged);
}

#[test]
fn the_authors_figure_is_at_its_floor_for_the_truth() {
    let [a, b, c] = [8, 9, 10].map(|seed| gaussian(400, 2, 1.0, 0.0, seed));
    let far = gaussian(400, 2, 1.0, 1.0, 11);
    let truth = sinkhorn_authors(&a, &b, &c, Default::default()).unwrap().value;
    let wrong = sinkhorn_authors(&a, &b, &far, Default::default()).unwrap().value;
    // means of 400 points are off by 0.05 each: distances of the truth scatter by hundredths; the shift costs 2
    assert!((1e-6..0.1).contains(&truth), "{truth}");
    close(wrong, 2.0, 0.5);
}

#[test]
fn bad_samples_are_refused() {
    let (u, mut v) = (gaussian(5, 2, 1.0, 0.0, 1), gaussian(5, 2, 1.0, 0.0, 2));
    assert!(transport(&u, &gaussian(5, 3, 1.0, 0.0, 1), settings(1.0)).is_err());
    assert!(transport(&u, &v, settings(0.0)).is_err());
    v.data[7] = f32::NAN;
    let error = transport(&u, &v, settings(1.0)).unwrap_err().to_string();
    assert!(error.contains("second sample, row 3"), "{error}");
    assert!(sliced_wasserstein(&u, &v, 10, stream(0)).unwrap().is_nan());
}

#[test]
fn slices_are_transported_by_their_quantiles() {
    // in one dimension every direction is ±1
    let x = Samples::new(Shape::rows(4, 1), vec![3.0, 0.0, 1.0, 2.0]);
    let y = Samples::new(Shape::rows(2, 1), vec![5.0, 1.0]);
    // quantiles 0 1 2 3 against 1 1 5 5
    close(sliced_wasserstein(&x, &y, 3, stream(0)).unwrap(), (1.0 + 0.0 + 9.0 + 4.0) / 4.0, 1e-12);
    let z = Samples::new(Shape::rows(3, 1), vec![0.0, 3.0, 6.0]);
    // against 0 3 6: [0, ¼) 0-0, [¼, ⅓) 1-0, [⅓, ½) 1-3, [½, ⅔) 2-3, [⅔, ¾) 2-6, [¾, 1) 3-6
    let expected = (1.0 + 2.0 * 4.0 + 2.0 * 1.0 + 16.0 + 3.0 * 9.0) / 12.0;
    close(sliced_wasserstein(&x, &z, 3, stream(0)).unwrap(), expected, 1e-12);
    close(sliced_wasserstein(&z, &x, 3, stream(0)).unwrap(), expected, 1e-12);
}

#[test]
fn a_shift_is_a_shift_in_every_slice() {
    let x = gaussian(200, 8, 1.0, 0.0, 1);
    let mut y = x.clone();
    y.data.iter_mut().for_each(|y| *y += 2.0);
    // <w, δ>² averages ‖δ‖²/D = 4, with a standard deviation of 4 √(2 (D-1)/(D+2)) = 4.7 over w; five standard errors
    close(sliced_wasserstein(&x, &y, 4000, stream(1)).unwrap(), 4.0, 5.0 * 4.7 / 4000f64.sqrt());
    assert_eq!(sliced_wasserstein(&x, &x, 50, stream(1)).unwrap(), 0.0);
    let (a, b) =
        (sliced_wasserstein(&x, &y, 50, stream(1)).unwrap(), sliced_wasserstein(&x, &y, 50, stream(2)).unwrap());
    assert!(a != b, "other projections, another estimate");
}

/// A mask and projections, each of other pixels and directions for every sample.
fn operators(x: &Samples<f32>) -> [Measured; 2] {
    let mask = corruption::random_mask(x.shape, 0.5, 1);
    [Measured::Mask(mask), Measured::Dense(corruption::random_projections(x.shape, 2, 1))]
}

#[test]
fn observations_tell_the_right_prior_from_wrong_ones() {
    let image = |x: Samples<f32>| Samples::new(Shape::new(x.shape.n, 1, 3, 2), x.data);
    let truth = image(gaussian(1500, 6, 1.0, 0.0, 1));
    let priors = [(1.0, 0.0, 2), (0.7, 0.0, 3), (1.0, 0.3, 4)].map(|(s, m, seed)| image(gaussian(6000, 6, s, m, seed)));
    for measured in operators(&truth) {
        let observations = corruption::observe(Path::new("y.npz"), &truth, measured, 0.1, 2).unwrap();
        let [right, narrow, shifted] = priors
            .each_ref()
            .map(|prior| sliced_wasserstein_observations(&observations, prior, 100, stream(3)).unwrap());
        // two samples of 1,500 differ by about 2/1,500 in one dimension, (1 - 0.7)² and 0.3² by ten times as much where half is seen
        for wrong in [narrow, shifted] {
            assert!(wrong.floor < 2.0 * right.floor && wrong.distance > 4.0 * right.distance, "{right:?} {wrong:?}");
        }
        let few = sliced_wasserstein_observations(&observations, &priors[0].first(100), 10, stream(3)).unwrap();
        let part = sliced_wasserstein_observations(&observations.rows(0..50), &priors[0].first(100), 10, stream(3));
        assert_eq!(few, part.unwrap(), "two samples for each of the first observations");
        assert!(sliced_wasserstein_observations(&observations, &priors[0].first(1), 10, stream(3)).is_err());
    }
}

/// What the distance is on average where the prior is right.
#[test]
fn the_floor_of_the_sliced_distance_is_its_mean_under_the_right_prior() {
    let image = |x: Samples<f32>| Samples::new(Shape::new(x.shape.n, 1, 3, 2), x.data);
    for kind in 0..2 {
        let (mut distance, mut floor) = (0.0, 0.0);
        for seed in 0..8 {
            let truth = image(gaussian(500, 6, 1.0, 0.0, 10 + seed));
            let [mask, dense] = operators(&truth);
            let measured = if kind == 0 { mask } else { dense };
            let observations = corruption::observe(Path::new("y.npz"), &truth, measured, 0.1, seed).unwrap();
            let prior = image(gaussian(4000, 6, 1.0, 0.0, 20 + seed));
            let found = sliced_wasserstein_observations(&observations, &prior, 100, stream(3)).unwrap();
            distance += found.distance;
            floor += found.floor;
        }
        // one distance has a standard deviation of about half of it, as projections in six dimensions have much in common
        close(distance / floor, 1.0, 3.0 * 0.5 / 8f64.sqrt());
    }
}

/// Ranks a right prior before two wrong ones, every time: one that is narrow, and one with the same variances and no correlations,
/// which no marginal tells.
#[test]
fn a_right_prior_predicts_better_than_wrong_ones() {
    // unit variances, correlations of 0.9
    let of = |count: usize, std: f64, correlation: f64, seed: u64| {
        let (own, shared) = (gaussian(count, 6, 1.0, 0.0, seed), gaussian(count, 1, 1.0, 0.0, seed + 1000));
        let mix = |(i, z): (usize, &f32)| {
            let (z, s) = (f64::from(*z), f64::from(shared.data[i / 6]));
            (std * (correlation.sqrt() * s + (1.0 - correlation).sqrt() * z)) as f32
        };
        Samples::new(Shape::new(count, 1, 3, 2), own.data.iter().enumerate().map(mix).collect())
    };
    for repetition in 0..8 {
        let truth = of(512, 1.0, 0.9, 10 * repetition);
        let priors = [(1.0, 0.9, 1), (0.7, 0.9, 2), (1.0, 0.0, 3)].map(|(s, c, k)| of(1024, s, c, 10 * repetition + k));
        for measured in operators(&truth) {
            let observations = corruption::observe(Path::new("y.npz"), &truth, measured, 0.1, repetition).unwrap();
            let [right, narrow, independent] =
                priors.each_ref().map(|prior| predictive_score(&observations, prior, stream(repetition)).unwrap());
            // the score of N(0, a²) where b is right is √(2/π) (√(a² + b²) - (a + b)/√2) too large: 0.015 for the narrow one, on
            // average over directions 0.03 for the other, against errors of 0.003 and 0.006 of 512 observations
            assert!(right > 0.0 && right < narrow && right < independent, "{right} {narrow} {independent}");
        }
    }
    let observations =
        corruption::observe(Path::new("y.npz"), &of(4, 1.0, 0.0, 1), operators(&of(4, 1.0, 0.0, 1))[1].clone(), 0.1, 1);
    assert!(predictive_score(&observations.unwrap(), &of(1, 1.0, 0.0, 1), stream(1)).is_err());
}

/// Of N(0, 1) in one dimension, the score is √(2/π) √(1 + s²) - s/√π for a prior of std s on average.
#[test]
fn the_score_is_the_closed_form_of_normal_numbers() {
    let (count, noise) = (4096, 1e-3);
    let identity = Samples::new(Shape::new(1, 1, 1, 1), vec![1.0]);
    let truth = gaussian(count, 1, 1.0, 0.0, 1);
    let observations = corruption::observe(Path::new("y.npz"), &truth, Measured::Dense(identity), noise, 1).unwrap();
    // the standard deviation of an observation's score, by simulation; the prior's samples add as much
    for (s, std) in [(0.5, 0.52), (1.0, 0.40), (2.0, 0.25)] {
        let found = predictive_score(&observations, &gaussian(4096, 1, s, 0.0, 2), stream(1)).unwrap();
        let pi = std::f64::consts::PI;
        let expected = (2.0 / pi).sqrt() * (1.0 + s * s).sqrt() - s / pi.sqrt();
        close(found, expected, 4.0 * (2.0 * std * std / f64::from(count as u32)).sqrt());
    }
}

#[test]
fn residuals_of_the_truth_are_those_of_the_noise() {
    let x = Samples::new(Shape::new(400, 1, 3, 2), gaussian(400, 6, 1.0, 0.0, 1).data);
    for measured in operators(&x) {
        let observations = corruption::observe(Path::new("y.npz"), &x, measured, 0.05, 2).unwrap();
        let residuals = observation_residual(&observations, &x, 1).unwrap();
        let seen: Vec<f64> = residuals.into_iter().filter(|r| *r > 0.0).collect(); // a mask may keep nothing
        let mean = seen.iter().sum::<f64>() / seen.len() as f64;
        // χ²/M of two values or more has a variance of at most 1: four standard errors
        close(mean, 1.0, 4.0 / (seen.len() as f64).sqrt());
        let twice: Vec<usize> = (0..800).map(|k| k / 2).collect();
        assert_eq!(observation_residual(&observations, &x.gather(&twice), 2).unwrap().len(), 800);
        assert!(observation_residual(&observations, &x, 2).is_err());
    }
}

#[test]
fn the_manifold_is_a_curve_that_fills_its_box() {
    for (dimension, seed) in [(1, 0), (3, 1), (5, 2)] {
        let manifold = Manifold::new(dimension, seed);
        let x = manifold.points(0, 20_000);
        assert_eq!(x.shape, Shape::rows(20_000, dimension));
        for j in 0..dimension {
            let column = || x.data.iter().skip(j).step_by(dimension).copied();
            let (low, high) = column().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
            // the extremes of the curve are within its grid's error of ±2; 20,000 points come close to them
            assert!((-2.0001..-1.99).contains(&low) && (1.99..2.0001).contains(&high), "{low} {high}");
        }
        // point k is the same in any company, and neighbours in z are neighbours in space
        assert_eq!(manifold.points(7, 3).data, x.data[7 * dimension..10 * dimension]);
        let z = manifold.position(7);
        let (here, near): (Vec<f64>, Vec<f64>) = (manifold.at(z).collect(), manifold.at(z + 1e-6).collect());
        let step = here.iter().zip(&near).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
        assert!(here.iter().zip(x.row(7)).all(|(a, b)| (a - f64::from(*b)).abs() < 1e-6) && step < 1e-3, "{step}");
    }
    assert_ne!(Manifold::new(3, 1).points(0, 4).data, Manifold::new(3, 2).points(0, 4).data);
}
