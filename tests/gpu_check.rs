//! `tools/gpu_check.sh` on a machine without a GPU: nothing stops it, and its report says what it did not get and why.
#![cfg(feature = "emulator")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/");

/// Stands for the program of the CUDA tests.
const TESTS: &str = r#"#!/bin/sh
case "$*" in
    --list*) printf 'op::passes: test\nop::fails: test\nop::fails_too: test\nop::is_skipped: test\n' ;;
    *op::fails*) printf 'thread panicked at op.rs:1:\nrelative error inf\n'; exit 101 ;;
    *op::is_skipped*) printf 'test op::is_skipped ... skipped: op.rs:2: no wgmma\nok\ntest result: ok. 1 passed\n' ;;
    *op::passes*) printf 'test result: ok. 1 passed\n' ;;
    *) printf 'test result: ok. 0 passed\n' ;;
esac
"#;

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_report_is_written_whatever_fails() {
    if Command::new("python3").arg("--version").output().is_err() {
        return eprintln!("skipped: it needs python3");
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path();
    for file in ["gpu_check.sh", "gpu_report.py"] {
        fs::copy(format!("{TOOLS}{file}"), folder.join(file)).unwrap();
    }
    fs::write(folder.join("manifest.txt"), "commit: 1234\n").unwrap();
    symlink(env!("CARGO_BIN_EXE_diem"), folder.join("diem")).unwrap();
    executable(&folder.join("cuda_tests"), TESTS);

    let mut command = Command::new(folder.join("gpu_check.sh"));
    command.env("DEVICE", "emulated").env("PARTS", "device tests step_bf16 peer_f32");
    command.env("BATCH", "0").env("OUT", folder.join("out")); // no step has a batch of none
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));

    let report = fs::read_to_string(folder.join("out/report.md")).unwrap();
    for line in [
        "| commit | 1234 |",
        "| nvidia-smi, `diem info` | passed |",
        "| device tests | all pass | 1 passed, 1 skipped, 2 failed |",
        "| MMPS(1), 256 steps, cifar, bf16 | failed (2); error: ",
        "| check, f32 | the part was not asked for, or not reached |",
        "| the same by azula, TF32 | failed (2); ",
        "- failed, relative error inf: op::fails, op::fails_too",
        "- skipped, op.rs:2: no wgmma: op::is_skipped",
    ] {
        assert!(report.contains(line), "no {line:?} in\n{report}");
    }
    let files: Vec<_> = fs::read_dir(folder.join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(files.len() <= 8, "{files:?}");
    serde_json::from_slice::<serde_json::Value>(&fs::read(folder.join("out/results.json")).unwrap()).unwrap();
}
