//! What is refused or stopped: in one line, with nothing of a run lost.

use super::*;
use diem::backend::reference::Reference;
use diem::data::{Checkpoint, Observations, OperatorKind};

#[test]
fn a_run_that_goes_wrong_stops_with_the_reason() {
    let home = Home::new();
    for (name, change, parts) in [
        ("bound", ("bound = 6.0", "bound = 0.5"), ["lap 0: 0 of 96 draws are not finite", "out of bounds"]),
        ("loss", ("lines = 6", "lines = 6\nmax_loss = 0.01"), ["lap 1: after step 16", "laps.max_loss = 0.01"]),
        ("fast", ("batch = 8", "batch = 8\nlr = 30.0"), ["lap 1: after step", "laps.max_loss = 100 for 16 steps"]),
        ("lr", ("batch = 8", "batch = 8\nlr = 1e30"), ["non-finite value", "training step"]),
    ] {
        home.configure(&format!("{name}.toml"), &[change]);
        let (line, code) = home.fail(&format!("fit {name}.toml"));
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
        assert_eq!(code, 3, "{line}");
        // the same again: it is a function of the run
        assert_eq!(home.fail(&format!("fit {name}.toml")).0, line);
    }
    // allowed more, it goes on
    home.configure("loss.toml", &[]);
    home.run("fit loss.toml");
}

/// `far.npz`: the observations, of which the first is far out.
fn write_far_observations(home: &Home) {
    let observations = Observations::read(&home.path("y.npz"), OperatorKind::Dense).unwrap();
    let mut y = observations.y().clone();
    y.data[..2].fill(3e3);
    let (noise, measured) = (observations.noise().to_vec(), observations.measured().clone());
    Observations::new(&home.path("far.npz"), y, noise, measured).unwrap().write().unwrap();
}

/// One observation far out has draws far out, which raise the mean loss without limit: the run is not stopped for them.
#[test]
fn few_draws_far_out_do_not_stop_a_run() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    write_far_observations(&home);
    home.configure("far.toml", &[("y.npz", "far.npz"), ("bound = 6.0\n", ""), ("count = 2", "count = 1")]);
    home.run("fit far.toml --warm-start run/gaussian.safetensors");
    let losses: Vec<f64> = home.metrics("far").iter().filter_map(|line| line["loss"].as_f64()).collect();
    // both far draws of 90 are in an epoch's 11 batches of 8 but seldom
    assert!(losses.iter().filter(|loss| **loss > 100.0).count() >= 4, "means above laps.max_loss: {losses:?}");
}

/// A batch of all draws is one of those that are left, when some are dropped.
#[test]
fn a_run_whose_batch_is_all_draws_outlives_dropped_ones() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    write_far_observations(&home);
    home.configure("far.toml", &[("y.npz", "far.npz"), ("batch = 8", "batch = 90"), ("count = 2", "count = 1")]);
    home.run("fit far.toml --warm-start run/gaussian.safetensors");
    let metrics = home.metrics("far");
    assert!(metrics.iter().any(|line| line["dropped"].as_u64() > Some(0)), "{metrics:?}");
    assert!(home.path("far/lap-001/model.safetensors").exists());
}

/// Nobody has to read what a run says.
#[test]
fn a_run_goes_on_when_its_output_is_closed() {
    let home = Home::new();
    let mut child = home.diem("fit config.toml --out run").stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.wait().unwrap();
    let complete = home.run("fit config.toml --out run");
    assert!(complete.contains("this run is complete"), "{complete}");
}

/// Draws that are not numbers are never learned from; the reason names the first with its step and layer.
#[test]
fn draws_that_are_not_finite_stop_the_run() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    let model = Checkpoint::open(&home.path("run/lap-002/model.safetensors")).unwrap();
    let (backend, layout) = (Reference::new(), model.metadata().layout());
    let tensors: Vec<(String, Vec<usize>, Vec<f32>)> = layout
        .specs()
        .iter()
        .map(|spec| {
            // the last layer's weights are finite, its sums are not
            let overflow = |x: &f64| if spec.name == "fc.1.weight" { x.signum() * 3e38 } else { *x };
            let x: Vec<f32> = model.parameter(&backend, spec).iter().map(|x| overflow(x) as f32).collect();
            (format!("net.{}", spec.name), spec.dims.clone(), x)
        })
        .collect();
    let views = tensors.iter().map(|(name, dims, x)| (name.clone(), dims.clone(), x.as_slice()));
    Checkpoint::write(&home.path("bad.safetensors"), model.metadata(), views, false).unwrap();
    let (line, code) = home.fail("fit config.toml --out bad --warm-start bad.safetensors");
    let parts = ["lap 0: 96 of 96 draws are not finite", "the first: sample 0, step"];
    assert!(parts.iter().all(|part| line.contains(part)) && line.contains(", fc.1") && code == 3, "{line}");
    assert!(!home.path("bad/lap-001").exists());
}

#[test]
fn wrong_configurations_and_directories_are_refused_in_one_line() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    fs::create_dir(home.path("mine")).unwrap();
    fs::write(home.path("mine/letter.txt"), "precious").unwrap();
    home.run("observe --manifold --dimension 4 --count 9 --operator dense --rows 2 --out other.npz");
    let before = home.everything(".");
    let mut faults = Vec::new();
    for (change, line, parts) in [
        (("steps = 8", "stpes = 8"), "--out new", ["line 23", "steps (the closest key)"]),
        (
            ("seed = 3", "seed = 9223372036854775808"),
            "--out new",
            ["seed: expected at most 9223372036854775807", "found 9223372036854775808"],
        ),
        (("[laps]", "[lapse]"), "--out new", ["laps (the closest key)", "lapse"]),
        (("draws = 2", "draws = 2\nprior_above = -1.0"), "--out new", ["--prior-above", "a positive number"]),
        (("draws = 2", "draws = 2\nprior_above = 1.0\ncovariance = \"unit\""), "--out new", ["prior_above", "tweedie"]),
        (("lines = 6", "colour = 6"), "--out new", ["one of count", "colour"]),
        (("steps = 8", "steps = \"8\""), "--out new", ["line 23", "invalid type"]),
        (("steps = 8", "steps = 8 8"), "--out new", ["line 23", "quoted"]),
        (("steps = 8", "steps = 0"), "--out new", ["[sample]", "1 to 65535"]),
        (("\"pc\"", "\"ddpm\"\neta = 0.5"), "--out new", ["--eta", "ddim"]),
        (("\"pc\"", "\"euler\""), "--out new", ["euler", "2m-sde"]),
        (("batch = 8", "batch = 800"), "--out new", ["[train]: batch", "at most 90"]),
        (("rank = 2", "rank = 4"), "--out new", ["[gaussian]: rank", "1 to 3"]),
        (("count = 2", "count = 2\nepochs = 3"), "--out new", ["[laps]: steps", "both"]),
        (("kind = \"mlp\"\nhidden = [16]", "preset = \"cifra\""), "--out new", ["preset", "cifar"]),
        (("hidden = [16]", "channels = [8]"), "--out new", ["channels", "none with this kind"]),
        (("operator = \"dense\"", "operator = \"mask\""), "--out new", ["y.npz", "mask"]),
        (("y.npz", "none.npz"), "--out new", ["none.npz", "cannot open"]),
        (("[model]", "count = 49\n[model]"), "--out new", ["observations.count", "at most 48"]),
        (("[model]", "[heldout]\nfile = \"other.npz\"\n[model]"), "--out new", ["other.npz", "y.npz"]),
        (("x.npy", "y.npz"), "--out new", ["y.npz", "expected"]),
        (("draws = 2", "draws = 80000000"), "--out new", ["--out new", "GiB free for samples"]),
        (("seed = 3", "seed = 4"), "--out run", ["seed: expected 3, as the run has it", "found 4"]),
        (("steps = 8", "steps = 9"), "--out run", ["sample.steps: expected 8", "found 9"]),
        (("bound = 6.0", ""), "--out run", ["sample.bound: expected 6.0", "found none"]),
        (("[model]", "count = 40\n[model]"), "--out run", ["observations (SHA-256)", "as the run has it"]),
        (("seed = 3", "seed = 3"), "--out mine", ["--out mine", "letter.txt"]),
        (("seed = 3", "seed = 3"), "--out new --warm-start y.npz", ["y.npz", "safetensors"]),
        (("seed = 3", "seed = 3"), "--out new --device cuda:99", ["--device", "cuda"]),
    ] {
        home.configure("config.toml", &[change]);
        let (refusal, code) = home.fail(&format!("fit config.toml {line}"));
        if code != 2 || !parts.iter().all(|part| refusal.contains(part)) {
            faults.push(format!("{change:?} {line}: {code}, {refusal}"));
        }
        home.configure("config.toml", &[]);
        assert!(home.everything(".") == before, "{change:?} {line} wrote something");
    }
    assert!(faults.is_empty(), "{}", faults.join(""));
}
