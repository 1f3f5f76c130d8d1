//! The emulator and the test kernels under AddressSanitizer and UndefinedBehaviorSanitizer.

use super::{device, seeded_bugs};
use diem_emulator::compile::Build;
use diem_emulator::seeded::{Bug, failure};
use diem_emulator::{HAS_RACE_CHECKER, compiler};
use std::path::Path;
use std::time::Duration;

/// Runs the cases of a kernel, or of all, in a library of the sanitizers' build.
fn found_in(library: &Path, kernel: &str, log: &str) -> Option<String> {
    let mut child = seeded_bugs::cases_in(library, kernel);
    compiler().preload_asan(&mut child).expect("g++ knows its libasan");
    failure(child, Duration::from_secs(300), &device::scratch("asan").join(log)).expect("this test can start itself")
}

#[test]
#[ignore = "takes half a minute; .ci/run runs it"]
fn cases_pass_under_sanitizers_and_an_overrun_does_not() {
    if !HAS_RACE_CHECKER {
        return eprintln!("skipped: it needs g++");
    }
    assert_eq!(found_in(&device::library(Build::Asan), "", "log"), None);

    let overrun =
        Bug::new("dot", "one past the end", "part[threadIdx.x / 32] = sum", "part[threadIdx.x / 32 + 1] = sum");
    let library = overrun.library(Build::Asan, &device::kernels(), None, &device::scratch("asan/overrun"));
    let found = found_in(&library.expect("it compiles"), "dot", "overrun/log").unwrap_or_default();
    assert!(found.contains("AddressSanitizer: use-after-poison"), "{found}");
}
