//! The command line end to end: results, resuming, refusals. The network, trained in PyTorch, runs on 8 x 8 pixels.

#[cfg(feature = "emulator")]
mod device;
mod eval;
#[path = "../home/mod.rs"]
mod home;
mod judging;
mod refusals;
mod report;

use diem::data::checkpoint::{Checkpoint, Kind, Metadata};
use diem::data::{Observations, OperatorKind};
use diem::nn::UNetConfig;
use home::{Home, MODEL};
use std::fs;
use std::path::Path;

/// Where what does not depend on the device is tested.
const DEVICES: &[&str] = if cfg!(feature = "emulator") { &["cpu", "emulated"] } else { &["cpu"] };

impl Home {
    fn new() -> Self {
        Self::empty()
    }
    /// `y.npz`: two images of which a quarter is known, 32 x 32.
    fn observe(&self) {
        self.run("observe --input IMAGES --count 2 --out y.npz --truth x.npy");
    }
}

/// The float32 values behind a header of 128 bytes or a multiple of 64.
fn values(npy: &[u8]) -> Vec<f32> {
    let header = 10 + usize::from(u16::from_le_bytes([npy[8], npy[9]]));
    npy[header..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

const PRIOR: &str = "sample --model MODEL --size 8 --sampler 2m-sde --steps 6 --threads 1";

#[test]
fn samples_do_not_depend_on_the_batch_or_the_threads() {
    let home = Home::new();
    home.run(&format!("{PRIOR} --count 7 --batch 1 --out one"));
    let expected = home.read("one/samples.npy");
    assert!(values(&expected).iter().all(|x| x.is_finite()));
    for (out, options) in
        [("three", "--batch 3"), ("seven", "--batch 7"), ("auto", ""), ("threads", "--batch 7 --threads 2")]
    {
        let line = PRIOR.replace("--threads 1", if out == "threads" { "" } else { "--threads 1" });
        home.run(&format!("{line} --count 7 {options} --out {out}"));
        assert_eq!(home.read(&format!("{out}/samples.npy")), expected, "{options}");
    }
    home.run(&format!("{PRIOR} --count 7 --seed 1 --out seed"));
    assert_ne!(home.read("seed/samples.npy"), expected);
}

#[test]
fn posterior_samples_come_with_moments_and_pictures() {
    let home = Home::new();
    home.observe();
    let line =
        "sample --model MODEL --observations y.npz --operator mask --draws 3 --sampler 2m-sde --steps 4 --threads 1";
    home.run(&format!("{line} --batch 2 --out two"));
    home.run(&format!("{line} --batch 5 --out five"));
    for name in ["samples.npy", "mean.npy", "std.npy", "mean.png", "std.png", "grid.png"] {
        assert_eq!(home.read(&format!("two/{name}")), home.read(&format!("five/{name}")), "{name}");
    }
    let [x, mean, std] = ["samples", "mean", "std"].map(|name| values(&home.read(&format!("two/{name}.npy"))));
    let d = 32 * 32;
    assert_eq!((x.len(), mean.len(), std.len()), (6 * d, 2 * d, 2 * d));
    assert!(x.iter().chain(&mean).chain(&std).all(|v| v.is_finite()));
    for i in 0..2 * d {
        let draws = [0, 1, 2].map(|k| f64::from(x[(3 * (i / d) + k) * d + i % d]));
        let m = draws.iter().sum::<f64>() / 3.0;
        let s = (draws.iter().map(|x| (x - m).powi(2)).sum::<f64>() / 2.0).sqrt();
        // both in f64 and rounded once to f32: 6e-8 relative; draws are below 4
        assert!((m - f64::from(mean[i])).abs() < 1e-6 && (s - f64::from(std[i])).abs() < 1e-6, "{i}");
    }
    let report: serde_json::Value = serde_json::from_slice(&home.read("two/run.json")).unwrap();
    assert_eq!(report["run"]["shape"], serde_json::json!([6, 32, 32, 1]));
    assert!(report["images_per_second"].as_f64().unwrap() > 0.0 && report["failures"].as_array().unwrap().is_empty());
}

#[test]
fn a_killed_run_continues_to_the_same_bits() {
    let home = Home::new();
    let line = format!("{PRIOR} --count 60 --batch 2");
    home.run(&format!("{line} --out whole"));
    // the moments differ from run to run, by golden steps; a run gets further each time
    let waits = (0..2000).scan(5, |wait, kills| {
        let now = *wait;
        *wait = 6 + now * 1618 / 1000 % 97 + kills;
        Some(now)
    });
    let kills = home.kill_until_done(&format!("{line} --out cut"), waits);
    assert!(kills > 2, "only {kills} kills: the run is too short for this test");
    assert!(home.run(&format!("{line} --out cut")).contains("complete"));
    for name in ["samples.npy", "grid.png"] {
        assert_eq!(
            home.read(&format!("cut/{name}")),
            home.read(&format!("whole/{name}")),
            "{name} after {kills} kills"
        );
    }
    assert!(!home.path("cut/samples.partial.npy").exists());
}

/// Writes the network with some parameters changed: `change` gets a name and its values.
fn changed_model(path: &Path, change: impl Fn(&str, f64) -> f64) {
    let network = Checkpoint::open(Path::new(MODEL)).unwrap();
    let (backend, layout) = (diem::backend::reference::Reference::new(), network.metadata().layout());
    let values = |spec| network.parameter(&backend, spec).iter().copied().collect::<Vec<f64>>();
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = layout
        .specs()
        .iter()
        .map(|spec| {
            let x = values(spec).into_iter().map(|x| change(&spec.name, x) as f32).collect();
            (format!("net.{}", spec.name), spec.dims.clone(), x)
        })
        .collect();
    let views = tensors.iter().map(|(name, dims, x)| (name.clone(), dims.clone(), x.as_slice()));
    Checkpoint::write(path, network.metadata(), views, false).unwrap();
}

/// The first layer makes numbers of 1e34 and the last takes them back: whatever an ordinary image gives is finite, and one
/// observation of 1e6 is not, once an estimate has come to it: in step 2, where σ is below 1 and the Jacobian near 1/(σ² + 1).
#[test]
fn one_bad_observation_fails_alone() {
    let home = Home::new();
    changed_model(&home.path("edge.safetensors"), |name, x| match name {
        "stem.weight" => x * 1e34,
        "head.weight" => x * 1e-34,
        _ => x,
    });
    home.run("observe --input IMAGES --count 3 --out good.npz");
    let good = Observations::read(&home.path("good.npz"), OperatorKind::Mask).unwrap();
    let mut y = good.y().clone();
    let d = y.shape.row();
    y.data[d..2 * d].iter_mut().for_each(|y| *y *= 1e6);
    Observations::new(&home.path("bad.npz"), y, good.noise().to_vec(), good.measured().clone())
        .unwrap()
        .write()
        .unwrap();
    let line = |name: &str| {
        format!(
            "sample --model edge.safetensors --observations {name}.npz --operator mask --draws 2 --sampler 2m-sde --steps 4 --out {name}"
        )
    };
    home.run(&line("good"));
    let output = home.diem(&line("bad")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3), "{stdout}");
    assert!(stdout.contains("2 samples are not finite; the first: sample 2, step 3, stem"), "{stdout}");
    let report: serde_json::Value = serde_json::from_slice(&home.read("bad/run.json")).unwrap();
    let failure = |sample: u32| serde_json::json!({"sample": sample, "step": 3, "layer": "stem"});
    assert_eq!(report["failures"], serde_json::json!([failure(2), failure(3)]));
    // the others have the bits that they have in good company, and so have their moments
    for (file, rows) in [("samples", 2), ("mean", 1), ("std", 1)] {
        let [good, bad] = ["good", "bad"].map(|run| values(&home.read(&format!("{run}/{file}.npy"))));
        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert!(good.iter().all(|x| x.is_finite()), "{file}");
        let range = rows * d..2 * rows * d;
        assert!(bad[range.clone()].iter().all(|x| x.is_nan()), "{file}");
        assert_eq!(bits(&bad[..range.start]), bits(&good[..range.start]), "{file}");
        assert_eq!(bits(&bad[range.end..]), bits(&good[range.end..]), "{file}");
    }
    assert!(home.path("bad/grid.png").exists());
}

#[test]
fn non_finite_samples_have_their_exit_code() {
    let home = Home::new();
    // a network whose last layer overflows: its parameters are finite, its values are not
    changed_model(&home.path("bad.safetensors"), |name, x| match name {
        "head.weight" => x.signum() * (1e38 * x.abs().max(1e-3)).min(3e38),
        _ => x,
    });
    for device in DEVICES {
        let line = PRIOR.replace("MODEL", "bad.safetensors") + " --count 3 --device " + device + " --out " + device;
        for again in ["not finite", "complete"] {
            let output = home.diem(&line).output().unwrap();
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.code(), Some(3), "{stdout}");
            assert!(stdout.contains(again), "{stdout}");
        }
        let report: serde_json::Value = serde_json::from_slice(&home.read(&format!("{device}/run.json"))).unwrap();
        let failures = report["failures"].as_array().unwrap();
        assert_eq!(failures.len(), 3);
        assert_eq!(
            (&failures[0]["sample"], &failures[0]["step"], &failures[0]["layer"]),
            (&0.into(), &1.into(), &"head".into()) // found after the first step
        );
        assert!(values(&home.read(&format!("{device}/samples.npy"))).iter().all(|x| x.is_nan()));
    }
}

#[test]
fn denoise_gives_values_vjps_and_posterior_means() {
    let home = Home::new();
    home.observe();
    home.run("denoise --model MODEL --input x.npy --sigma 0.5 --out shared.npy --vjp x.npy --vjp-out g.npy");
    home.run("denoise --model MODEL --input x.npy --sigma 0.5 0.5 --batch 1 --out each.npy");
    assert_eq!(home.read("shared.npy"), home.read("each.npy"));
    home.run(
        "denoise --model MODEL --input x.npy --sigma 0.5 --observations y.npz --operator mask --out posterior.npy",
    );
    let [x, prior, posterior, g] =
        ["x", "shared", "posterior", "g"].map(|name| values(&home.read(&format!("{name}.npy"))));
    assert!(prior.iter().chain(&posterior).chain(&g).all(|x| x.is_finite()) && g.iter().any(|g| *g != 0.0));
    let distance = |a: &[f32]| a.iter().zip(&x).map(|(a, x)| f64::from(a - x).powi(2)).sum::<f64>();
    assert!(distance(&posterior) < distance(&prior), "observing the truth draws the estimate towards it");

    let refusal = home.refuse("denoise --model MODEL --input x.npy --sigma 0.5 --out each.npy");
    assert!(refusal.contains("each.npy") && refusal.contains("--force"), "{refusal}");
    home.run("denoise --model MODEL --input x.npy --sigma 0.5 --out each.npy --force");
}

#[test]
fn a_gaussian_checkpoint_is_a_model_and_a_prior() {
    let home = Home::new();
    let metadata = Metadata { height: Some(2), width: Some(2), ..Metadata::new(Kind::Gaussian { channels: 1 }) };
    let (mean, diag, factor) = ([1.0f32; 4], [0.25f32; 4], [0.5f32; 4]);
    let tensors = [("mean", vec![4], &mean), ("diag", vec![4], &diag), ("factor", vec![4, 1], &factor)];
    let tensors = tensors.into_iter().map(|(name, dims, x)| (name.to_owned(), dims, x.as_slice()));
    Checkpoint::write(&home.path("g.safetensors"), &metadata, tensors, false).unwrap();
    home.run("sample --model g.safetensors --count 400 --steps 64 --sampler 2m --out run --threads 1");
    let x = values(&home.read("run/samples.npy"));
    assert_eq!(x.len(), 1600);
    assert!(x.iter().all(|x| x.is_finite()));
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / 1600.0;
    // the mean of 4 pixels has variance (0.25 + 4 · 0.25) / 4 = 0.31; over 400 samples its std is 0.028: 5 of them
    assert!((mean - 1.0).abs() < 0.14, "{mean}");
    home.observe();
    let line = "sample --model MODEL --observations y.npz --operator mask --covariance prior --steps 2 --out p";
    assert!(home.refuse(line).contains("--prior-model"));
    assert!(!home.path("p").exists(), "a folder that no run can use is not claimed");
    let refusal = home.refuse(&format!("{line} --prior-model g.safetensors"));
    assert!(refusal.contains("g.safetensors"), "{refusal}");
    let line = line.replace("--covariance prior", "--prior-above 1");
    assert!(home.refuse(&line).contains("--prior-above: expected a model with a fitted Gaussian"));
    assert!(home.refuse(&format!("{line} --covariance unit")).contains("--prior-above: expected --covariance tweedie"));
    assert!(home.refuse(&format!("{line} --method dps")).contains("--prior-above: expected --method mmps"));
}

#[test]
fn the_demo_runs_anywhere_and_again() {
    let home = Home::new();
    for images in [1, 2] {
        let stdout = home.run(&format!("demo --images {images} --draws 2"));
        assert!(stdout.contains("PSNR of the posterior mean") && stdout.contains("diem fit"), "{stdout}");
        assert_eq!(values(&home.read("diem-demo/samples.npy")).len(), images * 2 * 1024);
        assert!(home.read("diem-demo/demo.png").starts_with(b"\x89PNG"));
    }
}

#[test]
fn help_and_info_succeed() {
    let home = Home::new();
    for line in ["--help", "--version", "sample --help", "info", "info --model MODEL"] {
        assert!(!home.run(line).is_empty());
    }
    let info = home.run("info --model MODEL");
    assert!(info.contains("656961") && info.contains("cuda "), "{info}");
}
