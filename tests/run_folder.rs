//! A run's folder: refuses what is not its own, and goes on behind what is counted.

use diem::backend::Shape;
use diem::run::{Batch, Claim, Failure, Folder};
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

const SHAPE: Shape = Shape::new(5, 3, 2, 1);

fn identity(seed: u64) -> Map<String, Value> {
    json!({"command": "sample", "seed": seed, "rtol": 0.1 + 0.2}).as_object().unwrap().clone()
}

fn claim(path: &Path, seed: u64) -> Folder {
    match Folder::claim(path, identity(seed), SHAPE).unwrap() {
        Claim::Open(folder) => folder,
        Claim::Finished(_) => panic!("finished"),
    }
}

fn refusal(path: &Path, seed: u64) -> String {
    match Folder::claim(path, identity(seed), SHAPE) {
        Err(e) => e.to_string(),
        Ok(_) => panic!("not refused"),
    }
}

/// Samples `first..first + count`: element j of sample i is i + j / 8.
fn rows(first: usize, count: usize) -> Vec<f32> {
    (first..first + count).flat_map(|i| (0..SHAPE.row()).map(move |j| i as f32 + j as f32 / 8.0)).collect()
}

fn batch(samples: usize) -> Batch {
    Batch { samples, seconds: 0.1, breakdowns: 2, failures: vec![Failure { sample: 1, step: 3, layer: None }] }
}

fn finish(mut folder: Folder) -> Vec<u8> {
    let path = folder.path().to_owned();
    let done = folder.done();
    if done < SHAPE.n {
        folder.append(&rows(done, SHAPE.n - done), batch(SHAPE.n - done)).unwrap();
    }
    folder.finish(Map::new()).unwrap();
    fs::read(path.join("samples.npy")).unwrap()
}

#[test]
fn a_finished_run_is_recognised_and_another_one_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("deep/run");
    let bytes = finish(claim(&path, 0));
    assert_eq!(bytes.len(), 128 + SHAPE.len() * 4);
    assert!(matches!(Folder::claim(&path, identity(0), SHAPE).unwrap(), Claim::Finished(r) if r["run"]["seed"] == 0));
    let line = refusal(&path, 1);
    assert!(line.contains("another run") && line.contains("seed 1") && line.contains("seed 0"), "{line}");
    assert_eq!(fs::read(path.join("samples.npy")).unwrap(), bytes);
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 3, "{names:?}"); // .lock, run.json, samples.npy
}

#[test]
fn what_is_not_counted_is_cut_off() {
    let home = tempfile::tempdir().unwrap();
    let whole = finish(claim(&home.path().join("whole"), 0));

    let path = home.path().join("cut");
    let mut folder = claim(&path, 0);
    folder.append(&rows(0, 2), batch(2)).unwrap();
    drop(folder);
    let append = |name: &str, bytes: &[u8]| {
        OpenOptions::new().append(true).open(path.join(name)).unwrap().write_all(bytes).unwrap();
    };
    append("samples.partial.npy", b"rows that no line of the journal counts");
    append("progress.jsonl", br#"{"samples":3,"seconds":0.1,"brea"#); // a line that was being written
    let folder = claim(&path, 0);
    assert_eq!(folder.batches(), [batch(2)]);
    assert_eq!(finish(folder), whole);
}

#[test]
fn a_kill_at_any_moment_of_claiming_and_finishing_is_survived() {
    let home = tempfile::tempdir().unwrap();
    let whole = finish(claim(&home.path().join("whole"), 0));

    let path = home.path().join("early");
    fs::create_dir(&path).unwrap();
    fs::write(path.join(".lock"), "").unwrap();
    fs::write(path.join(".progress.jsonl.123.tmp"), "{").unwrap();
    assert_eq!(finish(claim(&path, 0)), whole);

    let path = home.path().join("late");
    let mut folder = claim(&path, 0);
    folder.append(&rows(0, 5), batch(5)).unwrap();
    drop(folder);
    fs::rename(path.join("samples.partial.npy"), path.join("samples.npy")).unwrap(); // and no run.json yet
    let folder = claim(&path, 0);
    assert_eq!((folder.done(), folder.samples().unwrap().rows()), (5, 5));
    assert_eq!(finish(folder), whole);
    assert!(!path.join("samples.partial.npy").exists() && !path.join("progress.jsonl").exists());
}

#[test]
fn foreign_and_busy_folders_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("foreign");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("grid.png"), "mine").unwrap();
    let line = refusal(&path, 0);
    assert!(line.contains("grid.png"), "{line}");
    let names: Vec<_> = fs::read_dir(&path).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["grid.png"]);

    let path = home.path().join("busy");
    let folder = claim(&path, 0);
    let line = refusal(&path, 0);
    assert!(line.contains("no other process"), "{line}");
    drop(folder);
    claim(&path, 0);

    let file = home.path().join("file");
    fs::write(&file, "mine").unwrap();
    assert!(refusal(&file, 0).contains("file"));
}

#[test]
fn a_partial_file_that_lost_counted_samples_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let mut folder = claim(home.path(), 0);
    folder.append(&rows(0, 2), batch(2)).unwrap();
    drop(folder);
    let partial = home.path().join("samples.partial.npy");
    OpenOptions::new().write(true).open(&partial).unwrap().set_len(140).unwrap();
    let line = refusal(home.path(), 0);
    assert!(line.contains("samples.partial.npy") && line.contains("2 rows"), "{line}");
}
