//! Some of the tests, on kernels that are compiled with AddressSanitizer and UndefinedBehaviorSanitizer.

use crate::harness::skip;
use diem_emulator::compile::{Build, files};
use diem_emulator::seeded::failure;
use diem_emulator::{HAS_RACE_CHECKER, PLAIN_VARIABLE, compiler};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const TESTS: [&str; 9] = [
    "attention::any_width_without_tensor_cores",
    "attention::tensor_cores_at_every_width",
    "channel_norm::parameter_gradients_add_up",
    "conv2d::convolutions",
    "conv2d::linear_layers",
    "mlp::values_gradients_and_what_is_kept",
    "sampling::conjugate_gradient_iterations",
    "sampling::the_mask_is_part_of_the_iteration",
    "training::the_norm_of_arrays_of_many_lengths",
];

const LIMIT: Duration = Duration::from_secs(600);

#[test]
#[ignore = "takes two minutes; .ci/run runs it"]
fn kernels_pass_under_sanitizers() {
    if !HAS_RACE_CHECKER {
        return skip("it needs g++");
    }
    let compiler = compiler();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("asan");
    let library = folder.join("kernels.so");
    let kernels = files(&compiler.headers, "cu").expect("the folder is there");
    compiler.library(Build::Asan, &kernels, &folder, &library).expect("the kernels compile");
    let mut child = Command::new(std::env::current_exe().expect("the program of this test"));
    child.args(["--exact", "--test-threads=1"]).args(TESTS);
    child.env(PLAIN_VARIABLE, library).env("DIEM_TEST_DEVICE", "emulated");
    compiler.preload_asan(&mut child).expect("g++ knows its libasan");
    let log = folder.join("log");
    assert_eq!(failure(child, LIMIT, &log).expect("the test can be started"), None);
    let passed = std::fs::read_to_string(&log).expect("what it printed");
    assert!(passed.contains(&format!("{} passed", TESTS.len())), "a test is not there: {passed}");
}
