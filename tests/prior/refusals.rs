//! Bad input ends in one line; what is written is read again.

use super::oracle::{D, IMAGE, Operator, observe, samples, stream, truth};
use diem::backend::Shape;
use diem::backend::reference::Reference;
use diem::data::Checkpoint;
use diem::diffusion::{Gaussian, Model};
use diem::prior::{MemoryRows, Settings, draw_posterior, fit, log_evidence, ppca, write_gaussian};

fn assert_line<T>(result: diem::Result<T>, line: &str) {
    assert_eq!(result.err().expect("it is refused").to_string(), line);
}

#[test]
fn settings_that_make_no_sense() {
    let observations = observe(&samples(&truth(), 5), Operator::Masks, 1e-2);
    let run = |settings: Settings| fit(&observations, IMAGE, &settings, stream(), &mut |_, _| ());
    let good = Settings { rank: 2, ..Settings::default() };
    assert!(run(good).is_ok());
    assert_line(run(Settings::default()), "rank: expected 1 to 16, the elements of a sample, found 64");
    assert_line(run(Settings { rank: 0, ..good }), "rank: expected 1 to 16, the elements of a sample, found 0");
    assert_line(run(Settings { rank: 5, ..good }), "observations: expected more than the rank, 5, found 5");
    let few = Settings { observations: 2, ..good };
    assert_line(run(few), "observations: expected more than the rank, 2, found 2");
    assert_line(run(Settings { iterations: 0, ..good }), "iterations: expected 1 to 4095, found 0");
    assert_line(run(Settings { floor: 0.0, ..good }), "floor: expected a positive variance, found 0");
    assert_line(run(Settings { tolerance: f64::NAN, ..good }), "tolerance: expected 0 or more, found NaN");
}

#[test]
fn settings_are_read_with_defaults_and_without_strangers() {
    let read = |json| serde_json::from_str::<Settings>(json);
    assert_eq!(read("{}").unwrap(), Settings::default());
    assert_eq!(read(r#"{"update": "closed-form", "rank": 64}"#).unwrap(), Settings::default());
    assert!(read(r#"{"ranks": 64}"#).unwrap_err().to_string().contains("unknown field `ranks`"));
    assert!(read(r#"{"update": "em"}"#).is_err());
}

#[test]
fn observations_of_other_images() {
    let observations = observe(&samples(&truth(), 5), Operator::Masks, 1e-2);
    let line = "obs.npz: array y: expected (N, 4, 4, 2), the model's images, found (5, 2, 4, 2)";
    let image = Shape::new(1, 4, 4, 2);
    assert_line(log_evidence(&truth(), &observations, image), line);
    assert_line(draw_posterior(&truth(), &observations, image, 0..1, 1, stream()), line);
    let other = Gaussian::new(vec![0.0; 3], vec![1.0; 3], vec![]).unwrap();
    let line = "Gaussian prior: expected 16 elements, as the images have, found 3";
    assert_line(log_evidence(&other, &observations, IMAGE), line);
}

#[test]
fn draws_that_cannot_be_fitted() {
    let x = samples(&truth(), 5).data;
    let fit = |x: &[f32], rank| ppca(&mut MemoryRows::new(x, D), rank, 1e-6, stream());
    assert_line(fit(&x, 17), "rank: expected 1 to 16, the elements of a sample, found 17");
    assert_line(fit(&x, 5), "draws: expected more than the rank, 5, found 5");
    let mut bad = x.clone();
    bad[3 * D + 7] = f32::NAN;
    assert_line(fit(&bad, 2), "non-finite value in draw 3 of those that a Gaussian prior is fitted to");
    // of draws that are all the same nothing but the floor is left
    let same = fit(&vec![0.25; 5 * D], 2).unwrap();
    assert!(same.diag().iter().all(|d| *d == 1e-6) && same.factor().as_slice().iter().all(|u| *u == 0.0));
}

#[test]
fn a_gaussian_is_written_and_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gaussian.safetensors");
    write_gaussian(&path, &truth(), IMAGE).unwrap();
    let backend = Reference::new();
    let model = Model::load(&backend, &Checkpoint::open(&path).unwrap(), IMAGE, true).unwrap();
    let read = model.prior().unwrap();
    let all = |g: &Gaussian| [g.mean(), g.diag(), g.factor().as_slice()].concat();
    assert!(all(read).iter().zip(all(&truth())).all(|(a, b)| *a == f64::from(b as f32)));
    write_gaussian(&path, &truth(), IMAGE).unwrap(); // a run that goes on writes it again
    let line = write_gaussian(&path, &truth(), Shape::new(1, 3, 3, 2)).unwrap_err().to_string();
    assert!(line.ends_with("expected a Gaussian prior of 18 elements, as the images have, found 16"), "{line}");
    let huge = Gaussian::new(vec![1e300; D], vec![1.0; D], vec![]).unwrap();
    let line = write_gaussian(&path, &huge, IMAGE).unwrap_err().to_string();
    assert!(line.starts_with("non-finite value in ") && line.ends_with("mean[0]"), "{line}");
    assert!(Checkpoint::open(&path).is_ok(), "what was there is still there");
}
