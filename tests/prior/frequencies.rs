//! Masked k-space, blur and downsampling under a Gaussian prior, whose systems are small in frequencies: against dense algebra.

use super::oracle::{Exact, assert_moments, condition, normals, stream, with_threads};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::{Measured, Observations, Samples, corruption};
use diem::diffusion::Gaussian;
use diem::linalg::Matrix;
use diem::prior::{Settings, Update, draw_posterior, fit, log_evidence};
use std::path::Path;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Operator {
    /// Half of the columns, others in every image.
    Fourier,
    /// A kernel of no symmetry.
    Blur,
    /// By 2.
    Downsample,
}

/// Even and odd, in both directions; one channel and two.
const CASES: [(Operator, Shape); 5] = [
    (Operator::Fourier, Shape::new(1, 3, 8, 1)),
    (Operator::Fourier, Shape::new(1, 4, 5, 1)),
    (Operator::Blur, Shape::new(1, 3, 4, 2)),
    (Operator::Blur, Shape::new(1, 4, 5, 1)),
    (Operator::Downsample, Shape::new(1, 6, 4, 1)),
];
const IMAGES: [Shape; 2] = [CASES[0].1, CASES[1].1];

/// Rank 2 and one value for the diagonal.
fn truth(image: Shape) -> Gaussian {
    let d = image.row();
    Gaussian::new(normals(d, 1), vec![0.0625; d], normals(d * 2, 2)).unwrap()
}

fn samples(gaussian: &Gaussian, image: Shape, count: usize) -> Samples<f32> {
    let d = image.row();
    let row = |n: usize| {
        let z = normals(d + 2, 1_000 + n as u32);
        let x = gaussian.factor().apply(&z[d..]);
        (0..d).map(|i| (gaussian.mean()[i] + gaussian.diag()[i].sqrt() * z[i] + x[i]) as f32).collect::<Vec<_>>()
    };
    Samples::new(image.with_n(count), (0..count).flat_map(row).collect())
}

fn observe(operator: Operator, images: &Samples<f32>, sigma_y: f64) -> Observations {
    let measured = match operator {
        Operator::Fourier => Measured::Fourier(corruption::random_columns(images.shape, 0.5, 0, 3)),
        Operator::Blur => {
            let kernel = vec![0.1, 0.3, 0.05, 0.2, 0.2, 0.15];
            Measured::Blur(Samples::new(Shape::new(1, 2, 3, 1), kernel))
        }
        Operator::Downsample => Measured::Downsample(2),
    };
    corruption::observe(Path::new("obs.npz"), images, measured, sigma_y, 3).unwrap()
}

/// A (M, D) and y of what was measured of observation `n`.
fn dense(observations: &Observations, image: Shape, n: usize) -> (Matrix, Vec<f64>) {
    let (backend, d, y) = (Reference::new(), image.row(), observations.y());
    let operator = observations.bind(&backend, &[n], image, None).unwrap().operator;
    let columns: Vec<Vec<f64>> = (0..d)
        .map(|i| {
            let unit: Vec<f64> = (0..d).map(|j| f64::from(u8::from(i == j))).collect();
            backend.to_vec(&operator.forward(&backend, &backend.upload(image, &unit))).unwrap()
        })
        .collect();
    let rows: Vec<usize> = (0..y.shape.row()).filter(|&m| observations.measured().observed(n, y.shape, m)).collect();
    let a = Matrix::from_fn(rows.len(), d, |m, i| columns[i][rows[m]]);
    (a, rows.iter().map(|&m| f64::from(y.row(n)[m])).collect())
}

#[test]
fn the_evidence_is_that_of_dense_algebra() {
    for (operator, image) in CASES {
        let gaussian = truth(image);
        for sigma_y in [1.0, 0.1, 1e-3] {
            let observations = observe(operator, &samples(&gaussian, image, 9), sigma_y);
            let one = |n| condition(&gaussian, dense(&observations, image, n), sigma_y).log_evidence;
            let expected = (0..9).map(one).sum::<f64>() / 9.0;
            let found = log_evidence(&gaussian, &observations, image).unwrap();
            // y is rounded to f32, 6e-8 of some 10, for both alike; S errs by 1e-15 of 100, which its inverse multiplies by 1e12
            let bound = 1e-9 * expected.abs() + 1e-13 / (sigma_y * sigma_y);
            assert!((found - expected).abs() < bound, "{operator:?} {image:?} {sigma_y}: {found} {expected}");
        }
    }
}

#[test]
fn draws_have_the_posteriors_moments() {
    for (operator, image) in CASES {
        let gaussian = truth(image);
        let images = samples(&gaussian, image, 3);
        for sigma_y in [0.3, 1e-2] {
            let (observations, draws) = (observe(operator, &images, sigma_y), 10_000);
            let x = draw_posterior(&gaussian, &observations, image, 2 * draws..3 * draws, draws, stream()).unwrap();
            let Exact { mean, cov, .. } = condition(&gaussian, dense(&observations, image, 2), sigma_y);
            assert_moments(&x, &mean, &cov, 0.0);
        }
    }
}

#[test]
fn bits_are_those_of_the_number() {
    let (image, d) = (IMAGES[0], IMAGES[0].row());
    let observations = observe(Operator::Fourier, &samples(&truth(image), image, 6), 1e-3);
    let draw = |range| draw_posterior(&truth(image), &observations, image, range, 3, stream()).unwrap();
    let all = with_threads(1, || draw(0..18));
    for range in [0..1, 2..7, 7..18] {
        assert_eq!(with_threads(3, || draw(range.clone())), all[range.start * d..range.end * d], "{range:?}");
    }
}

/// Both updates climb; the end is a prior that explains the observations as well as the one that they are of.
#[test]
fn the_evidence_never_falls() {
    for (image, sigma_y) in IMAGES.into_iter().zip([0.05, 1e-3]) {
        let gaussian = truth(image);
        let observations = observe(Operator::Fourier, &samples(&gaussian, image, 1_000), sigma_y);
        let settings = Settings { rank: 2, iterations: 200, tolerance: 0.0, ..Settings::default() };
        let found = fit(&observations, image, &settings, stream(), &mut |_, _| ()).unwrap();
        for (k, pair) in found.evidence.windows(2).enumerate() {
            assert!(pair[1] >= pair[0] - 1e-9 * pair[0].abs(), "iteration {k}: {pair:?}"); // sums of 10³ terms
        }
        let (last, of_truth) = (found.evidence.last().unwrap(), log_evidence(&gaussian, &observations, image).unwrap());
        // the truth is no maximum: the fit's evidence is above it by 1/2N for each of some 70 parameters
        assert!(*last > of_truth && *last < of_truth + 0.1, "{last} {of_truth}");
        let delta = found.gaussian.diag()[0];
        // one of 12 · 10³ squares or more is half of δ's: a relative standard error of 2%
        assert!((delta / 0.0625 - 1.0).abs() < 0.1, "{delta}");
    }
}

/// One operator for all is what closed-form moments are for.
#[test]
fn the_evidence_never_falls_under_filters() {
    for (operator, image) in CASES.into_iter().filter(|case| case.0 != Operator::Fourier) {
        let gaussian = truth(image);
        let observations = observe(operator, &samples(&gaussian, image, 300), 0.05);
        let settings = Settings { rank: 2, iterations: 25, tolerance: 0.0, ..Settings::default() };
        let found = fit(&observations, image, &settings, stream(), &mut |_, _| ()).unwrap().evidence;
        for (k, pair) in found.windows(2).enumerate() {
            assert!(pair[1] >= pair[0] - 1e-9 * pair[0].abs(), "{operator:?}, iteration {k}: {pair:?}");
        }
        assert!(found.last().unwrap() > &(found[0] + 1.0), "{operator:?}: {found:?}");
    }
}

#[test]
fn the_other_updates_run_too() {
    let image = IMAGES[1];
    let observations = observe(Operator::Fourier, &samples(&truth(image), image, 200), 0.05);
    for update in [Update::Draws, Update::Ddim] {
        let settings = Settings { rank: 2, iterations: 4, update, steps: 16, ..Settings::default() };
        let found = fit(&observations, image, &settings, stream(), &mut |_, _| ()).unwrap();
        let evidence = found.evidence;
        assert!(evidence.last().unwrap() > &(evidence[0] + 1.0), "{evidence:?}");
    }
}

/// In another basis a diagonal of several values would be a full matrix.
#[test]
fn a_diagonal_of_several_values_is_refused() {
    let image = IMAGES[0];
    let observations = observe(Operator::Fourier, &samples(&truth(image), image, 2), 0.1);
    let d = image.row();
    let uneven = Gaussian::new(vec![0.0; d], (1..=d).map(|i| i as f64).collect(), vec![]).unwrap();
    let line = log_evidence(&uneven, &observations, image).unwrap_err().to_string();
    let expected = "Gaussian prior, diag: expected one value for all elements, as fitted ones have, for operator fourier, found several";
    assert_eq!(line, expected);
    let colour = Shape::new(1, 3, 8, 3);
    let line = log_evidence(&truth(image), &observations, colour).unwrap_err().to_string();
    assert!(line.contains("one channel, not of 3 x 8 x 3"), "{line}");
}
