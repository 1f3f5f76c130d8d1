//! Images from measurements of other kinds, end to end: every lap learns, draws and measures.

use super::Home;
use diem::data::{Array, npy};

/// k-space of images, two draws each: every lap learns, draws and measures.
#[test]
fn images_are_learned_from_columns_of_k_space() {
    let home = Home::new();
    // smooth, so that few frequencies tell much
    let pixel = |i: usize| ((i / 64) as f32 * 0.7 + (i % 8) as f32 * 0.4).sin() + ((i / 8 % 8) as f32 * 0.6).cos();
    let x = Array::f32(&[32, 8, 8, 1], (0..32 * 64).map(pixel).collect());
    npy::write(&home.path("images.npy"), &x).unwrap();
    let said = home.run("observe --input images.npy --operator fourier --acceleration 2 --noise 0.05 --out k.npz");
    assert!(said.contains("32 images 8 x 8 x 1") && said.contains("of the columns of k-space"), "{said}");
    let network = "kind = \"unet\"\nchannels = [4]\nblocks = [1]";
    home.configure(
        "fourier.toml",
        &[
            ("\"y.npz\"", "\"k.npz\""),
            ("\"dense\"", "\"fourier\""),
            ("kind = \"mlp\"\nhidden = [16]", network),
            ("steps = 60", "steps = 12"),
            ("truth = \"x.npy\"", "truth = \"images.npy\""),
        ],
    );
    home.run("fit fourier.toml --out run");
    let lines = home.metrics("run");
    let evidence: Vec<f64> = lines.iter().filter_map(|l| l["log_evidence"].as_f64()).collect();
    assert!(evidence.len() == 4 && evidence.windows(2).all(|pair| pair[1] >= pair[0]), "{evidence:?}");
    // exact draws of the Gaussian prior agree with what was measured: the mean of 64 draws' 2 x 5 x 8 numbers at most
    let chi2 = lines.iter().find(|l| l["phase"] == "sample" && l["lap"] == 0).unwrap()["chi2"].as_f64().unwrap();
    assert!((0.3..1.5).contains(&chi2), "{chi2}");
    let last = lines.last().unwrap();
    for name in ["sliced_wasserstein", "held_out_loss", "chi2", "variance", "variance_unobserved", "psnr"] {
        assert!(last[name].as_f64().is_some_and(|x| x > 0.0), "{name} of {last}");
    }
    for file in ["lap-000/preview.png", "lap-002/preview.png", "lap-002/prior.png"] {
        assert!(home.read(&format!("run/{file}")).starts_with(b"\x89PNG"), "{file}");
    }
    home.run("sample --model run/lap-002/model.safetensors --observations k.npz --operator fourier --iterations 3 --steps 4 --out s");
    let model = "denoise --model run/lap-002/model.safetensors --sigma 0.5 --input images.npy";
    home.run(&format!("{model} --observations k.npz --operator fourier --out d.npy"));
    let (line, code) = home.fail(&format!("{model} --observations k.npz --operator mask --out e.npy"));
    assert!(line.contains("mask") && code == 2, "{line}");
}

#[test]
fn images_are_learned_from_blurred_and_small_ones() {
    for (operator, options) in [("blur", "--kernel-size 3"), ("downsample", "--factor 2")] {
        let home = Home::new();
        let x = Array::f32(&[24, 8, 8, 1], (0..24 * 64).map(|i| (i as f32 * 0.37).sin()).collect());
        npy::write(&home.path("images.npy"), &x).unwrap();
        home.run(&format!("observe --input images.npy --operator {operator} {options} --noise 0.05 --out b.npz"));
        let kind = format!("\"{operator}\"");
        home.configure(
            "b.toml",
            &[
                ("\"y.npz\"", "\"b.npz\""),
                ("\"dense\"", &kind),
                ("kind = \"mlp\"\nhidden = [16]", "kind = \"unet\"\nchannels = [4]\nblocks = [1]"),
                ("steps = 60", "steps = 12"),
                ("count = 2", "count = 1"),
                ("truth = \"x.npy\"", "truth = \"images.npy\""),
            ],
        );
        home.run("fit b.toml --out run");
        let lines = home.metrics("run");
        let evidence: Vec<f64> = lines.iter().filter_map(|l| l["log_evidence"].as_f64()).collect();
        assert!(evidence.len() == 4 && evidence.windows(2).all(|pair| pair[1] >= pair[0]), "{evidence:?}");
        assert!(lines.last().unwrap()["psnr"].as_f64().is_some_and(|x| x > 0.0), "{:?}", lines.last());
        assert!(home.read("run/lap-001/preview.png").starts_with(b"\x89PNG"));
        let model = "run/lap-001/model.safetensors";
        home.run(&format!("sample --model {model} --observations b.npz --operator {operator} --steps 4 --out s"));
    }
}
