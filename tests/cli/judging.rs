//! `diem calibrate` and `diem compare`.

use super::*;

/// N(0.5, 0.25 I + u uᵀ) in three dimensions, with the factor times `scale`.
fn gaussian(home: &Home, name: &str, scale: f32) {
    let metadata = Metadata { height: Some(1), width: Some(1), ..Metadata::new(Kind::Gaussian { channels: 3 }) };
    let (mean, diag, factor) = ([0.5f32; 3], [0.25 * scale * scale; 3], [0.5 * scale, -0.5 * scale, 0.25 * scale]);
    let tensors = [("mean", vec![3], &mean), ("diag", vec![3], &diag), ("factor", vec![3, 1], &factor)];
    let tensors = tensors.into_iter().map(|(name, dims, x)| (name.to_owned(), dims, x.as_slice()));
    Checkpoint::write(&home.path(name), &metadata, tensors, false).unwrap();
}

const CALIBRATE: &str =
    "calibrate --rows 2 --noise 0.1 --count 200 --draws 15 --iterations 3 --sampler 2m-sde --steps 32";

#[test]
fn a_right_model_is_calibrated_and_a_narrow_one_is_not() {
    let home = Home::new();
    gaussian(&home, "right.safetensors", 1.0);
    gaussian(&home, "narrow.safetensors", 0.6);
    home.run("sample --model right.safetensors --count 200 --sampler 2m-sde --steps 64 --seed 3 --out truth");
    // its own default noise is one that it takes
    home.run("calibrate --model right.safetensors --count 20 --draws 3 --steps 8 --significance 0 --out usual.json");
    let usual: serde_json::Value = serde_json::from_slice(&home.read("usual.json")).unwrap();
    assert_eq!(usual["noise"], 0.05);
    let stdout = home.run(&format!("{CALIBRATE} --model right.safetensors --out own.json"));
    assert!(stdout.contains("likelihood") && stdout.contains("TARP"), "{stdout}");
    let report: serde_json::Value = serde_json::from_slice(&home.read("own.json")).unwrap();
    assert_eq!((&report["calibrated"], &report["calibration"]["draws"]), (&true.into(), &15.into()));
    assert!(home.read("own.png").starts_with(b"\x89PNG"));
    let truths = "--truth truth/samples.npy";
    home.run(&format!("{CALIBRATE} --model right.safetensors {truths} --out right.json"));
    let output =
        home.diem(&format!("{CALIBRATE} --model narrow.safetensors {truths} --out narrow.json")).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.code() == Some(1) && stdout.contains("NOT calibrated"), "{stdout}");
    for (line, part) in [
        (format!("{CALIBRATE} --model right.safetensors --out own.json"), "--force"),
        (format!("{CALIBRATE} --model right.safetensors --noise 1e-3 --out x.json"), "--noise"),
        (format!("{CALIBRATE} --model right.safetensors --significance 2 --out x.json"), "--significance"),
    ] {
        let refusal = home.refuse(&line.replacen(
            "--noise 0.1 ",
            if line.matches("--noise").count() > 1 { "" } else { "--noise 0.1 " },
            1,
        ));
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
}

#[test]
fn figure_2_is_a_table_a_file_and_a_chart() {
    let home = Home::new();
    let line = "compare figure2 --seeds 1 --points 60 --sigmas 0.1 1 --out f.json";
    let stdout = home.run(line);
    assert!(stdout.contains("tweedie") && stdout.contains("lambda 1e-3"), "{stdout}");
    let report: serde_json::Value = serde_json::from_slice(&home.read("f.json")).unwrap();
    assert_eq!(report["levels"].as_array().unwrap().len(), 2);
    assert!(home.read("f.png").starts_with(b"\x89PNG"));
    assert!(home.refuse(line).contains("--force"));
    assert!(home.refuse("compare figure2 --points 0").contains("--points"));
    assert!(home.refuse("compare").contains("command"));
}

#[test]
fn figure_2_goes_on_where_it_was_killed() {
    let home = Home::new();
    let line = "compare figure2 --seeds 2 --points 80 --sigmas 0.1 0.5 1 --out";
    home.run(&format!("{line} whole.json"));
    // a process that is given more time each time comes to an end
    let kills = home.kill_until_done(&format!("{line} cut.json"), (0..200).map(|patience| 20 + 5 * patience));
    assert!(kills > 2, "{kills}: too few to tell");
    assert!(home.read("cut.json") == home.read("whole.json") && home.read("cut.png") == home.read("whole.png"));
    assert!(!home.path("cut.part.json").exists());
    // a part of another comparison is not gone on with, nor lost
    std::fs::write(home.path("cut.part.json"), r#"{"of": {"points": 9}, "levels": []}"#).unwrap();
    std::fs::remove_file(home.path("cut.json")).unwrap();
    std::fs::remove_file(home.path("cut.png")).unwrap();
    let refusal = home.refuse(&format!("{line} cut.json"));
    assert!(
        refusal.contains("cut.part.json: expected a part of {") && refusal.contains("found {\"points\":9}"),
        "{refusal}"
    );
    assert!(home.path("cut.part.json").exists());
    home.run(&format!("{line} cut.json --force"));
    assert!(home.read("cut.json") == home.read("whole.json"));
}
