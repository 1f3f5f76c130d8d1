//! `diem eval` on arrays.

use super::*;
use diem::data::{Array, npy};
use serde_json::Value;

impl Home {
    fn array(&self, name: &str, shape: &[usize], value: impl Fn(usize) -> f32) {
        let data = (0..shape.iter().product()).map(value).collect();
        npy::write(&self.path(name), &Array::f32(shape, data)).unwrap();
    }
    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&self.read(name)).unwrap()
    }
}

#[test]
fn a_set_is_at_no_distance_from_itself() {
    let home = Home::new();
    let out = home.run("eval --samples IMAGES --reference IMAGES --json same.json");
    let same = home.json("same.json");
    let number = |json: &Value, name: &str| json[name].as_f64().unwrap();
    for name in ["sliced_wasserstein", "mean_rms_difference", "std_rms_difference"] {
        assert_eq!(number(&same, name), 0.0, "{name}");
    }
    assert_eq!(same["frechet_features"], "FD-garments");
    assert!(out.contains("FD-garments, 32 samples against 32"), "{out}");
    home.run("eval --samples IMAGES --reference IMAGES --reference-count 16 --json half.json");
    let (same, half) = (number(&same, "frechet"), number(&home.json("half.json"), "frechet"));
    assert!(same.is_finite() && half > 1.0 && same < 1e-6 * half, "{same} {half}"); // rounding of singular covariances
}

#[test]
fn draws_are_compared_with_their_truth() {
    let home = Home::new();
    home.array("x.npy", &[3, 4, 4, 1], |i| (i % 7) as f32 * 0.3 - 1.0);
    // the draws of an image lie 0.5 above and 0.3 below the truth
    home.array("draws.npy", &[6, 4, 4, 1], |i| {
        let (row, element) = (i / 16, i % 16);
        ((row / 2 * 16 + element) % 7) as f32 * 0.3 - 1.0 + if row % 2 == 0 { 0.5 } else { -0.3 }
    });
    let out = home.run("eval --samples draws.npy --truth x.npy --json r.json");
    let report = home.json("r.json");
    let close = |name: &str, expected: f64| {
        let found = report[name].as_f64().unwrap();
        assert!((found - expected).abs() < 1e-5, "{name}: {found} {expected}"); // float32 arrays
    };
    close("mse", 0.01);
    close("psnr", 10.0 * 1600f64.log10());
    close("spread", 0.8 / 2f64.sqrt());
    assert!(out.contains("2 of each image"), "{out}");
}

#[test]
fn vectors_have_no_features_and_say_so() {
    let home = Home::new();
    home.array("x.npy", &[50, 3], |i| (i as f32).sin());
    home.array("y.npy", &[40, 3], |i| (i as f32).sin() + 0.5);
    let out = home.run("eval --samples x.npy --reference y.npy --projections 64 --json r.json");
    assert!(out.contains("none: FD-garments is for images of 32 x 32 x 1"), "{out}");
    let distance = home.json("r.json")["sliced_wasserstein"].as_f64().unwrap();
    assert!((0.1..0.6).contains(&distance), "{distance}"); // a shift δ is at |δ|²/D = 0.25
}

#[test]
fn samples_that_are_not_finite_are_left_out_and_told() {
    let home = Home::new();
    let spoilt = |i: usize| if i == 20 { f32::NAN } else { (i as f32).cos() };
    home.array("x.npy", &[5, 4, 4, 1], spoilt);
    let output = home.diem("eval --samples x.npy").output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1, which are left out"));
}

#[test]
fn arrays_that_do_not_fit_are_refused() {
    let home = Home::new();
    home.array("x.npy", &[4, 8, 8, 1], |i| (i as f32).cos());
    home.array("three.npy", &[3, 8, 8, 1], |i| (i as f32).cos());
    home.array("nan.npy", &[3, 8, 8, 1], |_| f32::NAN);
    home.array("cube.npy", &[4, 8, 8], |_| 0.0);
    fs::write(home.path("r.json"), "precious").unwrap();
    let before = home.everything(".");
    for (line, part) in [
        ("eval", "--samples"),
        ("eval --samples no.npy", "no.npy: cannot open"),
        ("eval --samples cube.npy", "cube.npy: expected shape (M, H, W, C) or (M, D), found (4, 8, 8)"),
        ("eval --samples nan.npy", "nan.npy: expected at least two samples that are finite, found 0"),
        ("eval --samples x.npy --reference IMAGES", "expected 8 x 8 x 1, as the samples are, found 32 x 32 x 1"),
        ("eval --samples x.npy --reference nan.npy", "nan.npy"),
        ("eval --samples x.npy --truth three.npy", "x.npy: samples of the truth: expected K draws of each"),
        ("eval --samples x.npy --projections 0", "--projections"),
        ("eval --samples x.npy --json r.json", "r.json: expected no such file yet (or --force)"),
    ] {
        let refusal = home.refuse(line);
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
    assert_eq!(home.everything("."), before);
    home.run("eval --samples x.npy --json r.json --force");
}
