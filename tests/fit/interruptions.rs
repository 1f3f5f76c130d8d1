//! Killed, out of disk, or continued with more laps, a run ends with the same bits.

use super::*;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn killed_at_fifty_moments_it_ends_with_the_same_bits() {
    let home = Home::new();
    home.run("fit config.toml --out whole");
    let (mut kills, mut runs, mut random) = (0, 0, 1u64);
    while kills < 50 {
        runs += 1;
        let out = format!("cut-{runs}");
        // a process that is given more time each time comes to an end
        let waits = (0..500).map(|patience| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % (40 + 10 * patience)
        });
        kills += home.kill_until_done(&format!("fit config.toml --out {out}"), waits);
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
