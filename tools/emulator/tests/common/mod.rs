//! The test kernels of `tests/kernels`, compiled at test time, and typed access to their device.

use diem_emulator::compile::{Build, files};
use diem_emulator::{Config, Emulator, HAS_RACE_CHECKER, compiler};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The emulator of the test kernels in this build.
pub fn emulator(config: Config) -> Emulator {
    static PLAIN: OnceLock<Emulator> = OnceLock::new();
    static RACE: OnceLock<Emulator> = OnceLock::new();
    let (cell, build) = if config.race { (&RACE, Build::Race) } else { (&PLAIN, Build::Plain) };
    let mut emulator = *cell.get_or_init(|| Emulator::open(&library(build), config).expect("the library loads"));
    emulator.config = config;
    emulator
}

/// Every schedule in every build that there is.
pub fn schedules() -> impl Iterator<Item = Config> {
    let race = HAS_RACE_CHECKER.then(|| Config::schedules(true));
    if race.is_none() {
        eprintln!("no race build: it needs g++");
    }
    Config::schedules(false).chain(race.into_iter().flatten())
}

fn library(build: Build) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator").join(build.name());
    let kernels =
        files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels"), "cu").expect("the folder is there");
    let library = folder.join("kernels.so");
    compiler().library(build, &kernels, &[], &folder, &library).expect("the kernels compile");
    library
}
