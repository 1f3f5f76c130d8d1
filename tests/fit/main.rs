//! `diem fit` end to end, on a few dozen vectors: it learns, survives being killed, and refuses what it cannot do.

#[path = "../home/mod.rs"]
mod home;
mod interruptions;
mod operators;
mod oracle;
mod refusals;

use diem::data::{Array, npy};
use diem::em::Config;
use home::Home;
use serde_json::Value;
use std::fs;
use std::path::Path;

const CONFIG: &str = r#"
seed = 3

[observations]
file = "y.npz"
operator = "dense"

[model]
kind = "mlp"
hidden = [16]
emb = 8
sigma_max = 10.0

[gaussian]
rank = 2
iterations = 3

[train]
batch = 8

[sample]
sampler = "pc"
steps = 8
iterations = 2
draws = 2
bound = 6.0
batch = 8

[laps]
count = 2
steps = 60
lines = 6
save_seconds = 0.0

[metrics]
samples = 12
projections = 8
truth = "x.npy"
"#;

const IMAGES: &str = r#"
[observations]
file = "y.npz"
operator = "mask"

[model]
kind = "unet"
channels = [4]
blocks = [1]
emb = 8
patch = 4

[gaussian]
rank = 2
iterations = 2

[train]
batch = 8
lr = 1e-3

[sample]
sampler = "2m-sde"
steps = 4

[laps]
count = 1
steps = 8

[metrics]
samples = 8
projections = 8
truth = "x.npy"
"#;

impl Home {
    /// With observations and a configuration.
    fn new() -> Self {
        let home = Self::empty();
        home.run("observe --manifold --dimension 3 --count 48 --operator dense --rows 2 --noise 0.05 --out y.npz --truth x.npy");
        home.configure("config.toml", &[]);
        home
    }
    /// Writes [`CONFIG`] with some of its lines replaced.
    fn configure(&self, name: &str, changes: &[(&str, &str)]) {
        let mut text = CONFIG.to_owned();
        for (line, other) in changes {
            assert!(text.contains(line), "{line}");
            text = text.replacen(line, other, 1);
        }
        fs::write(self.path(name), text).unwrap();
    }
    /// The lines of a run's metrics, without what depends on time.
    fn metrics(&self, run: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{run}/metrics.jsonl"))).unwrap();
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let numbers = line.as_object_mut().unwrap();
            assert!(numbers.values().all(|v| !v.is_null()), "{numbers:?}: a number is not finite");
            numbers.retain(|key, _| key != "seconds" && key != "images_per_second");
            line
        };
        text.lines().map(parse).collect()
    }
    /// What a run has learned and drawn.
    fn results(&self, run: &str, laps: usize) -> Vec<(String, Vec<u8>)> {
        let files = (0..=laps).flat_map(|lap| {
            let names = ["samples.npy", "prior.npy", "model.safetensors"]; // the Gaussian prior's model lies elsewhere
            names.into_iter().take(if lap == 0 { 2 } else { 3 }).map(move |name| format!("lap-{lap:03}/{name}"))
        });
        files.map(|file| (file.clone(), self.read(&format!("{run}/{file}")))).collect()
    }
    fn assert_same(&self, run: &str, other: &str, laps: usize, after: &str) {
        for ((name, theirs), (_, ours)) in self.results(run, laps).into_iter().zip(self.results(other, laps)) {
            assert!(theirs == ours, "{name} differs {after}");
        }
        assert_eq!(self.metrics(run), self.metrics(other), "{after}");
    }
}

/// The float32 values behind a header of 128 bytes.
fn values(npy: &[u8]) -> Vec<f32> {
    npy[128..].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn a_run_learns_draws_and_measures() {
    let home = Home::new();
    let stdout = home.run("fit config.toml --out run");
    assert!(stdout.contains("lap 2, crps") && stdout.contains("lap-002/model.safetensors"), "{stdout}");
    for lap in 0..=2 {
        let x = values(&home.read(&format!("run/lap-{lap:03}/samples.npy")));
        assert_eq!(x.len(), 48 * 2 * 3);
        assert!(x.iter().all(|x| x.is_finite()));
    }
    let lines = home.metrics("run");
    let count = |phase: &str, lap: usize| lines.iter().filter(|l| l["phase"] == phase && l["lap"] == lap).count();
    // N(0, I), and three iterations; what the laps begin with is measured as they are
    assert_eq!((count("gaussian", 0), count("train", 0), count("sample", 0), count("lap", 0)), (4, 0, 1, 1));
    for lap in 1..=2 {
        // 90 draws of 45 observations are 11 batches of 8; every epoch has a line, and the last step
        assert_eq!((count("train", lap), count("sample", lap), count("lap", lap)), (6, 1, 1), "lap {lap}");
    }
    let evidence: Vec<f64> = lines.iter().filter_map(|l| l["log_evidence"].as_f64()).collect();
    assert!(evidence.windows(2).all(|pair| pair[1] >= pair[0]), "{evidence:?}");
    for line in lines.iter().filter(|line| line["phase"] == "lap") {
        for name in [
            "crps",
            "sliced_wasserstein",
            "sliced_wasserstein_floor",
            "chi2",
            "variance",
            "variance_unobserved",
            "sinkhorn",
            "psnr",
        ] {
            assert!(line[name].as_f64().is_some_and(|x| x > 0.0), "{name} of {line}");
        }
        assert_eq!(line["held_out_loss"].as_f64().is_some_and(|x| x > 0.0), line["lap"] != 0, "{line}");
        assert_eq!(line.get("frechet"), None, "vectors have no such features");
    }
    for lap in 0..=2 {
        assert!(home.read(&format!("run/lap-{lap:03}/corner.png")).starts_with(b"\x89PNG"));
    }
    // the network is an ordinary checkpoint, with the Gaussian of its data
    home.run("sample --model run/lap-002/model.safetensors --observations y.npz --operator dense --covariance prior --steps 4 --out s");
    // every default is filled in, and what is filled in is read again
    let written = Config::read(&home.path("run/config.toml")).unwrap();
    assert_eq!(written, Config::read(&home.path("config.toml")).unwrap());
    assert!(String::from_utf8(home.read("run/config.toml")).unwrap().contains("max_dropped = 0.1"));
    assert!(home.run("fit run/config.toml").contains("complete"));
}

/// Images of 32 x 32 x 1 have a Frechet distance to the truth, others have not.
#[test]
fn images_are_compared_in_the_features_of_garments() {
    let home = Home::new();
    for (side, compared) in [(32, true), (16, false)] {
        let pixel = |i: usize| {
            let (n, y, x) = (i / (side * side), i / side % side, i % side);
            2.0 * ((n + 1) as f32 * 0.3).sin() * ((x + n) as f32 * 0.2).cos() * (y as f32 * 0.1).cos()
        };
        let images = Array::f32(&[40, side, side, 1], (0..40 * side * side).map(pixel).collect());
        npy::write(&home.path("x.npy"), &images).unwrap();
        home.run("observe --input x.npy --keep 0.5 --noise 0.01 --out y.npz --force");
        fs::write(home.path("images.toml"), IMAGES).unwrap();
        let out = format!("run-{side}");
        home.run(&format!("fit images.toml --out {out}"));
        let lines: Vec<_> = home.metrics(&out).into_iter().filter(|line| line["phase"] == "lap").collect();
        assert_eq!(lines.len(), 2, "the Gaussian prior, and a lap");
        for line in lines {
            assert_eq!(line["frechet"].as_f64().is_some_and(|d| d > 0.0), compared, "{line}");
            assert_eq!(line["frechet_features"] == "FD-garments", compared, "{line}");
            assert!(line["psnr"].as_f64().is_some(), "{line}");
            for picture in ["preview.png", "prior.png"] {
                assert!(home.read(&format!("{out}/lap-00{}/{picture}", line["lap"])).starts_with(b"\x89PNG"));
            }
        }
    }
}

/// The learner's kernels: the Gaussian prior is the host's, training and sampling are the GPU's.
#[cfg(feature = "emulator")]
#[test]
fn the_emulated_gpu_learns_as_the_cpu_does() {
    let home = Home::new();
    let few = [
        ("steps = 8", "steps = 4\nprior_above = 1.0"),
        ("bound = 6.0\n", ""),
        ("count = 2", "count = 1"),
        ("steps = 60", "steps = 11"),
    ];
    home.configure("config.toml", &few);
    for device in ["cpu", "emulated"] {
        home.run(&format!("fit config.toml --device {device} --out {device}"));
    }
    assert!(home.read("cpu/lap-000/samples.npy") == home.read("emulated/lap-000/samples.npy"));
    let numbers = |run: &str, name: &str| -> Vec<f64> {
        home.metrics(run).iter().filter(|line| line["lap"] == 1).filter_map(|line| line[name].as_f64()).collect()
    };
    // an epoch of 11 steps: float32 sums in another order err by 1e-6, and Adam's first steps are of the gradients' signs, of which
    // a few near 0 differ
    for name in ["loss", "gradient_norm", "held_out_loss", "crps"] {
        let [cpu, emulated] = ["cpu", "emulated"].map(|run| numbers(run, name));
        assert!(!cpu.is_empty() && cpu.len() == emulated.len(), "{name}");
        for (cpu, emulated) in cpu.iter().zip(&emulated) {
            assert!((cpu - emulated).abs() < 1e-3 * cpu.abs(), "{name}: {cpu} {emulated}");
        }
    }
}

#[test]
fn a_warm_start_begins_with_the_draws_and_the_weights_of_a_checkpoint() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    let model = "run/lap-002/model.safetensors";
    home.configure("one.toml", &[("count = 2", "count = 1")]);
    home.run(&format!("fit one.toml --out warm --warm-start {model}"));
    assert!(!home.path("warm/gaussian.safetensors").exists());
    assert_eq!(home.read("warm/lap-000/model.safetensors"), home.read(model));
    assert_ne!(home.read("warm/lap-000/samples.npy"), home.read("run/lap-002/samples.npy")); // another lap, other noise
    assert!(home.run("fit one.toml --out warm").contains("complete"));
    // without a lap the checkpoint is only measured; laps may follow
    home.configure("none.toml", &[("count = 2", "count = 0")]);
    let stdout = home.run(&format!("fit none.toml --out later --warm-start {model}"));
    assert!(stdout.contains("the prior is lap-000/model.safetensors"), "{stdout}");
    let lines = home.metrics("later");
    assert!(lines.last().is_some_and(|line| line["phase"] == "lap" && line["lap"] == 0), "{lines:?}");
    home.run("fit one.toml --out later");
    home.assert_same("warm", "later", 1, "begun without a lap");
    assert!(home.run("fit none.toml --out nothing").contains("the prior is gaussian.safetensors"));
    let (line, code) = home.fail("fit one.toml --out warm --warm-start run/lap-001/model.safetensors");
    assert!(line.contains("--warm-start") && code == 2, "{line}");
    // a Gaussian, or another network, gives draws only
    home.run("fit one.toml --out gaussian --warm-start run/gaussian.safetensors");
}

#[test]
fn the_configurations_of_the_experiments_are_read() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"));
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        found += 1;
        let config = Config::read(&path).unwrap();
        let again = Config::parse(&config.text(), "its text").unwrap();
        assert_eq!(again, config, "{}", path.display());
    }
    assert!(found >= 5, "{found} configurations");
}
