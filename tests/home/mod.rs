//! A folder to work in, and `diem` in it, for the tests of the command line.
#![allow(dead_code)] // every test uses its part

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/fashion-small.safetensors");
pub const IMAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets/fashion-test.npy");

pub struct Home(pub tempfile::TempDir);

impl Home {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
    /// Every file below a folder, with its contents.
    pub fn everything(&self, folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let (mut folders, mut files) = (vec![self.path(folder)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()) {
                if entry.is_dir() { folders.push(entry) } else { files.push((entry.clone(), fs::read(entry).unwrap())) }
            }
        }
        files.sort();
        files
    }

    /// `diem` with the words of `line`; MODEL and IMAGES stand for the assets.
    pub fn diem(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_diem"));
        let words = line.split_whitespace().map(|word| match word {
            "MODEL" => MODEL,
            "IMAGES" => IMAGES,
            word => word,
        });
        command.args(words).current_dir(&self.0);
        command
    }
    pub fn run(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.diem(line).output().unwrap();
        assert!(status.success(), "diem {line}: {status}\n{}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }
    /// The one line with which it ends, and its exit code.
    pub fn fail(&self, line: &str) -> (String, i32) {
        error(line, &self.diem(line).output().unwrap())
    }
    /// The one line with which it refuses.
    pub fn refuse(&self, line: &str) -> String {
        let (text, code) = self.fail(line);
        assert_eq!(code, 2, "diem {line}: {text}");
        text
    }
    /// Starts `line` again and again and kills it after the next of `waits` (in ms), until a process has come to its end; says how
    /// many were killed.
    pub fn kill_until_done(&self, line: &str, waits: impl IntoIterator<Item = u64>) -> usize {
        for (kills, wait) in waits.into_iter().enumerate() {
            let mut child = self.diem(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(wait));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "diem {line} after {kills} kills: {status}");
                return kills;
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        panic!("diem {line} comes to no end");
    }
}

/// The one line with which a command has ended, and its exit code.
pub fn error(line: &str, output: &Output) -> (String, i32) {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(stderr.starts_with("error: ") && stderr.lines().count() == 1, "diem {line}: {stderr:?}");
    (stderr, output.status.code().unwrap())
}
