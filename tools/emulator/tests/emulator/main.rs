//! The emulator's own tests: each instruction against its definition, whole kernels under every schedule, errors, and bugs
//! seeded into kernels. The kernels are those of `tests/kernels`, compiled at test time.

#![cfg(target_os = "linux")]

use diem_emulator::Config;

mod cases;
mod device;
mod errors;
mod instructions;
mod sanitizers;
mod seeded_bugs;

/// Correct kernels pass under every schedule, in the plain and the race build.
#[test]
fn correct_kernels_pass() {
    for config in Config::all() {
        for (name, case) in cases::ALL {
            case(&device::emulator(config)).unwrap_or_else(|e| panic!("{name}, {config:?}: {e}"));
        }
    }
}
