//! `diem train` end to end: what it writes, that a run which was killed goes on bit by bit, and what it refuses.

mod home;

use diem::backend::Shape;
use diem::backend::cpu::{Cpu, Options};
use diem::data::{Array, Checkpoint, npy};
use diem::diffusion::Model;
use home::Home;
use serde_json::Value;
use std::fs;

impl Home {
    /// With samples and networks.
    fn new() -> Self {
        let home = Self::empty();
        let wave = |len: usize| (0..len).map(|i| (0.7 * i as f32).sin() + (0.011 * i as f32).cos()).collect();
        npy::write(&home.path("vectors.npy"), &Array::f32(&[40, 4], wave(160))).unwrap();
        npy::write(&home.path("images.npy"), &Array::f32(&[11, 8, 8, 3], wave(11 * 192))).unwrap();
        let unet = r#"{"kind": "unet", "in_channels": 3, "out_channels": 3, "channels": [16, 16], "blocks": [1, 1], "emb": 8}"#;
        fs::write(home.path("unet.json"), unet).unwrap();
        fs::write(home.path("mlp.json"), r#"{"kind": "mlp", "features": 4, "hidden": [16], "emb": 8}"#).unwrap();
        home
    }
    /// The epochs of a run, without what depends on time.
    fn epochs(&self, run: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.path(run).join("metrics.jsonl")).unwrap();
        let epoch = |line| {
            let mut epoch: Value = serde_json::from_str(line).unwrap();
            assert!(epoch["seconds"].take().as_f64().unwrap() >= 0.0);
            epoch
        };
        text.lines().map(epoch).collect()
    }
    fn model(&self, run: &str) -> Vec<u8> {
        self.read(&format!("{run}/model.safetensors"))
    }
}

const UNET: &str = "train --device cpu --data images.npy --model unet.json --batch 4 --micro-batch 3 --held-out 2 --epochs 3 \
                    --lr 1e-3 --flip true --shift 2 --hue 0.01 --rank 3 --seed 5";

#[test]
fn a_run_writes_a_model_and_its_metrics() {
    let home = Home::new();
    let told = home.run(&format!("{UNET} --out run"));
    assert!(told.contains("run/model.safetensors: 6 steps, loss "), "{told}");
    let epochs = home.epochs("run");
    assert_eq!(epochs.len(), 3);
    for (i, epoch) in epochs.iter().enumerate() {
        assert_eq!((&epoch["phase"], epoch["epoch"].as_u64()), (&Value::from("train"), Some(i as u64)));
        for name in ["loss", "held_out_loss", "gradient_norm", "lr"] {
            assert!(epoch[name].as_f64().unwrap() > 0.0, "{epoch}");
        }
    }
    assert!(!home.path("run/state.safetensors").exists());
    let checkpoint = Checkpoint::open(&home.path("run/model.safetensors")).unwrap();
    let model = Model::load(&Cpu::new(Options::default()).unwrap(), &checkpoint, Shape::new(1, 8, 8, 3), true).unwrap();
    assert_eq!(model.prior().unwrap().factor().cols(), 3);

    assert!(home.run(&format!("{UNET} --out run")).contains("complete, nothing to do"));
    home.run("sample --device cpu --model run/model.safetensors --size 8 --count 2 --steps 2 --out samples");
    // a checkpoint is where another run starts
    home.run("train --device cpu --data images.npy --model run/model.safetensors --batch 4 --epochs 1 --out further");
    assert!(home.model("further") != home.model("run"));
}

#[test]
fn a_run_that_is_killed_goes_on_bit_by_bit() {
    let home = Home::new();
    let mlp =
        "train --device cpu --data vectors.npy --model mlp.json --batch 8 --held-out 8 --epochs 60 --ema 0.99 --seed 3";
    for (line, name) in [(UNET, "unet"), (mlp, "mlp")] {
        home.run(&format!("{line} --out {name}"));
        let waits = (0..).map(|kills| 15 + 9 * kills);
        let kills = home.kill_until_done(&format!("{line} --save-every 0 --out {name}-killed"), waits);
        println!("{name}: killed {kills} times");
        assert!(kills > 0, "{name}: it was never killed");
        assert!(home.model(name) == home.model(&format!("{name}-killed")), "{name}: other bits after {kills} kills");
        assert_eq!(home.epochs(name), home.epochs(&format!("{name}-killed")));
    }
}

#[test]
fn what_cannot_be_learned_is_refused() {
    let home = Home::new();
    fs::create_dir(home.path("foreign")).unwrap();
    fs::write(home.path("foreign/notes.txt"), "mine").unwrap();
    let mlp = "train --device cpu --model mlp.json --epochs 1";
    let data = "--data vectors.npy --batch 8";
    for (line, expected) in [
        (format!("{mlp} {data} --out foreign"), "--out foreign: expected a new or empty folder, or one of this run"),
        (format!("{mlp} --data vectors.npy --batch 64 --out run"), "batch: expected at most 40"),
        (format!("{mlp} --data none.npy --out run"), "none.npy: cannot open"),
        (format!("{mlp} --data images.npy --batch 4 --out run"), "image for this model: expected 4 channels, found 3"),
        (format!("{mlp} {data} --flip true --out run"), "augmentation: expected none for vectors"),
        (format!("{mlp} {data} --dropout 1 --out run"), "dropout: expected 0 or more, below 1, found 1"),
        (format!("{mlp} {data} --lr 0 --out run"), "lr: expected a finite number above 0, found 0"),
        (format!("{mlp} {data} --held-out 40 --out run"), "--held-out: expected fewer than the 40 samples"),
        (
            "train --device cpu --data images.npy --model large --out run".into(),
            "--model: expected cifar, mri, small, mlp",
        ),
        (
            "train --device cpu --data images.npy --model unet.json --batch 4 --shift 8 --out run".into(),
            "augmentation.shift",
        ),
        ("train --device cpu --data images.npy --model cifar --size 6 --batch 4 --out run".into(), "multiples of 4"),
        ("train --data images.npy".into(), "--out"),
    ] {
        if line.contains("cifar") {
            npy::write(&home.path("odd.npy"), &Array::f32(&[4, 6, 6, 3], vec![0.0; 4 * 108])).unwrap();
        }
        let line = line.replace("--data images.npy --model cifar --size 6", "--data odd.npy --model cifar");
        let told = home.refuse(&line);
        assert!(told.contains(expected), "diem {line}: {told}");
        assert!(!home.path("run").exists(), "diem {line}");
    }
    assert_eq!(fs::read_dir(home.path("foreign")).unwrap().count(), 1);

    home.run(&format!("{mlp} {data} --out run"));
    let told = home.refuse("report run");
    assert!(told.contains("expected a folder of diem fit or diem sample"), "no broken run of fit: {told}");
    let told = home.refuse(&format!("{mlp} {data} --lr 0.5 --out run"));
    assert!(told.contains("--out run: belongs to another run: expected settings"), "{told}");
    let (told, code) = home.fail(&format!("{mlp} {data} --lr 1e30 --out diverged"));
    assert!(told.contains("non-finite value") && code == 3, "{told}: {code}");
    npy::write(&home.path("nan.npy"), &Array::f32(&[8, 4], vec![f32::NAN; 32])).unwrap();
    assert!(
        home.refuse(&format!("{mlp} --data nan.npy --batch 8 --out other")).contains("non-finite value in nan.npy")
    );
}
