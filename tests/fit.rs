//! `diem fit` end to end, on a few dozen vectors: it learns, survives being killed, and refuses what it cannot do.

use diem::em::Config;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

/// A folder with observations and a configuration, and the command in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        home.run("observe --manifold --dimension 3 --count 48 --operator dense --rows 2 --noise 0.05 --out y.npz --truth x.npy");
        home.configure("config.toml", &[]);
        home
    }
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
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
    fn diem(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diem"));
        command.args(line.split_whitespace()).current_dir(&self.0);
        command
    }
    fn run(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.diem(line).output().unwrap();
        assert!(status.success(), "diem {line}: {status}\n{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
    /// The line with which it ends, and its exit code.
    fn fail(&self, line: &str) -> (String, i32) {
        let output = self.diem(line).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "diem {line}: {stderr:?}");
        (stderr, output.status.code().unwrap())
    }
    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
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
            let names: &[&str] =
                if lap == 0 { &["samples.npy"] } else { &["model.safetensors", "samples.npy", "prior.npy"] };
            names.iter().map(move |name| format!("lap-{lap:03}/{name}"))
        });
        files.map(|file| (file.clone(), self.read(&format!("{run}/{file}")))).collect()
    }
    fn assert_same(&self, run: &str, other: &str, laps: usize, after: &str) {
        for ((name, theirs), (_, ours)) in self.results(run, laps).into_iter().zip(self.results(other, laps)) {
            assert!(theirs == ours, "{name} differs {after}");
        }
        assert_eq!(self.metrics(run), self.metrics(other), "{after}");
    }
    /// Every file below a folder, with its contents.
    fn everything(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut folders, mut files) = (vec![self.path(name)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                if entry.is_dir() { folders.push(entry) } else { files.push((entry.clone(), fs::read(entry).unwrap())) }
            }
        }
        files.sort();
        files
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
    assert!(stdout.contains("lap 2, sliced_wasserstein") && stdout.contains("lap-002/model.safetensors"), "{stdout}");
    for lap in 0..=2 {
        let x = values(&home.read(&format!("run/lap-{lap:03}/samples.npy")));
        assert_eq!(x.len(), 48 * 2 * 3);
        assert!(x.iter().all(|x| x.is_finite()));
    }
    let lines = home.metrics("run");
    let count = |phase: &str, lap: usize| lines.iter().filter(|l| l["phase"] == phase && l["lap"] == lap).count();
    assert_eq!((count("gaussian", 0), count("sample", 0)), (4, 1)); // N(0, I), and three iterations
    for lap in 1..=2 {
        // 90 draws of 45 observations are 11 batches of 8; every epoch has a line, and the last step
        assert_eq!((count("train", lap), count("sample", lap), count("lap", lap)), (6, 1, 1), "lap {lap}");
    }
    let evidence: Vec<f64> = lines.iter().filter_map(|l| l["log_evidence"].as_f64()).collect();
    assert!(evidence.windows(2).all(|pair| pair[1] >= pair[0]), "{evidence:?}");
    let last = lines.last().unwrap();
    for name in ["sliced_wasserstein", "held_out_loss", "chi2", "variance", "variance_unobserved", "sinkhorn", "psnr"] {
        assert!(last[name].as_f64().is_some_and(|x| x > 0.0), "{name} of {last}");
    }
    // the network is an ordinary checkpoint, with the Gaussian of its data
    home.run("sample --model run/lap-002/model.safetensors --observations y.npz --operator dense --covariance prior --steps 4 --out s");
    // every default is filled in, and what is filled in is read again
    let written = Config::read(&home.path("run/config.toml")).unwrap();
    assert_eq!(written, Config::read(&home.path("config.toml")).unwrap());
    assert!(String::from_utf8(home.read("run/config.toml")).unwrap().contains("max_dropped = 0.1"));
    assert!(home.run("fit run/config.toml").contains("complete"));
}

#[test]
fn killed_at_fifty_moments_it_ends_with_the_same_bits() {
    let home = Home::new();
    home.run("fit config.toml --out whole");
    let (mut kills, mut runs, mut random) = (0u64, 0, 1u64);
    while kills < 50 {
        runs += 1;
        let out = format!("cut-{runs}");
        let mut patience = 0;
        loop {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            // a process that is given more time each time comes to an end
            let wait = (random >> 33) % (40 + 10 * patience);
            patience += 1;
            let mut child = home.diem(&format!("fit config.toml --out {out}"));
            let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "run {runs} after {kills} kills: {status}");
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
        }
        home.assert_same("whole", &out, 2, &format!("in run {runs}, after {kills} kills in all"));
    }
}

#[test]
fn more_laps_and_lost_samples_are_made_up_for() {
    let home = Home::new();
    home.run("fit config.toml --out run");
    home.configure("more.toml", &[("count = 2", "count = 3"), ("save_seconds = 0.0", "keep = 1")]);
    home.run("fit more.toml --out whole");
    assert!(!home.path("whole/lap-002/samples.npy").exists(), "one lap's samples are kept");
    for lap in 0..=2 {
        fs::remove_file(home.path(&format!("run/lap-{lap:03}/samples.npy"))).unwrap();
    }
    home.run("fit more.toml --out run");
    for file in ["lap-003/model.safetensors", "lap-003/samples.npy", "lap-003/prior.npy"] {
        assert!(home.read(&format!("run/{file}")) == home.read(&format!("whole/{file}")), "{file}");
    }
    assert_eq!(home.metrics("run"), home.metrics("whole"));
    // without the working folders too, as a run directory in a repository is
    for lap in 0..=3 {
        fs::remove_dir_all(home.path(&format!("run/lap-{lap:03}/.samples"))).unwrap();
        let _ = fs::remove_file(home.path(&format!("run/lap-{lap:03}/samples.npy"))); // not all are there
    }
    home.configure("more.toml", &[("count = 2", "count = 4")]);
    home.run("fit more.toml --out run");
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
    let (line, code) = home.fail("fit one.toml --out warm --warm-start run/lap-001/model.safetensors");
    assert!(line.contains("--warm-start") && code == 2, "{line}");
    // a Gaussian, or another network, gives draws only
    home.run("fit one.toml --out gaussian --warm-start run/gaussian.safetensors");
}

#[test]
fn a_run_that_goes_wrong_stops_with_the_reason() {
    let home = Home::new();
    for (name, change, parts) in [
        ("bound", ("bound = 6.0", "bound = 0.5"), ["lap 0: 0 of 96 draws are not finite", "out of bounds"]),
        ("loss", ("lines = 6", "lines = 6\nmax_loss = 0.01"), ["lap 1: after step", "laps.max_loss = 0.01"]),
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
        (("[laps]", "[lapse]"), "--out new", ["laps (the closest key)", "lapse"]),
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

#[test]
fn two_processes_do_not_work_on_one_run() {
    let home = Home::new();
    home.configure("config.toml", &[("steps = 60", "steps = 200000")]);
    let mut child = home.diem("fit config.toml --out run").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !home.path("run/lap-000/samples.npy").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let (line, code) = home.fail("fit config.toml --out run");
    assert!(line.contains("no other process") && code == 2, "{line}");
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A limit on the size of files stands for a full disk: writing fails at the same places.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_in_one_line_and_the_run_continues_later() {
    let home = Home::new();
    home.configure("config.toml", &[("hidden = [16]", "hidden = [256]"), ("save_seconds = 0.0", "")]);
    home.run("fit config.toml --out whole");
    // draws and metrics fit 8 KiB, the weights do not
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {} fit config.toml --out cut", env!("CARGO_BIN_EXE_diem"));
    let output = Command::new("bash").args(["-c", &script]).current_dir(&home.0).output().unwrap();
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(2) && line.contains("cannot write") && line.lines().count() == 1, "{line}");
    home.run("fit config.toml --out cut");
    home.assert_same("whole", "cut", 2, "after a full disk");
}

#[test]
fn the_configurations_of_the_experiments_are_read() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/configs"));
    let mut found = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        found += 1;
        let config = match Config::read(&path) {
            // an operator that is not there yet is refused by its name
            Err(e) if path.ends_with("mri.toml") => {
                assert!(e.to_string().contains("unknown variant `fourier`"), "{e}");
                continue;
            }
            config => config.unwrap(),
        };
        let again = Config::parse(&config.text(), "its text").unwrap();
        assert_eq!(again, config, "{}", path.display());
    }
    assert!(found >= 5, "{found} configurations");
}
