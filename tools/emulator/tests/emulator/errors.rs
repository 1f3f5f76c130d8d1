//! What goes wrong in a launch comes back as an error that says what and where, and the process lives on.

use super::device::{Argument, Buffer, emulator, launch};
use diem_emulator::{Config, Emulator, HAS_RACE_CHECKER, Policy, Tensor};

const ONE_WARP: ([u32; 3], [u32; 3], u32) = ([1, 1, 1], [32, 1, 1], 0);

fn plain() -> Emulator {
    emulator(Config::default())
}

/// <2, 3> over `n` elements of buffers of 100.
fn dot(emulator: &Emulator, n: i32) -> Result<f32, String> {
    let (a, b) = (Buffer::of(emulator, &[2f32; 100]), Buffer::of(emulator, &[3f32; 100]));
    let out = Buffer::of(emulator, &[0f32]);
    launch(emulator, "dot_f32", ([1, 1, 1], [64, 1, 1], 8), &[&a, &b, &out, &n])?;
    Ok(out.read()[0])
}

/// The error of a launch; then a correct one, to show that the emulator is whole.
fn error_of(emulator: &Emulator, kernel: &str, shape: ([u32; 3], [u32; 3], u32), args: &[&dyn Argument]) -> String {
    let error = launch(emulator, kernel, shape, args).expect_err("the launch fails");
    assert_eq!(dot(emulator, 100), Ok(600.0));
    error
}

#[track_caller]
fn assert_says(error: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
}

#[test]
fn tensor_maps_that_cuda_refuses() {
    let good = Tensor {
        base: 4096,
        extent: [64, 10, 1, 1],
        stride: [2, 128, 1280, 1280],
        box_extent: [64, 128, 1, 1],
        step: [1; 4],
        element: 2,
        rank: 4,
        swizzle: 128,
    };
    let error = |tensor| plain().tensor_map(&tensor).expect_err("a wrong tensor");
    assert!(plain().tensor_map(&good).is_ok());
    assert_says(&error(Tensor { base: 4104, ..good }), &["address", "4104"]);
    assert_says(&error(Tensor { stride: [2, 72, 720, 720], ..good }), &["strides"]);
    assert_says(&error(Tensor { step: [1, 3, 1, 1], ..good }), &["span 1 to 256"]);
    assert_says(&error(Tensor { box_extent: [128, 1, 1, 1], ..good }), &["swizzle"]);
}

#[test]
fn unknown_kernels_and_wrong_arguments_are_refused() {
    let emulator = plain();
    assert!(emulator.kernels().iter().any(|k| k == "dot_f32"));
    assert_says(&error_of(&emulator, "dot_f64", ONE_WARP, &[]), &["no kernel is named dot_f64"]);
    assert_says(&error_of(&emulator, "dot\0", ONE_WARP, &[]), &["no kernel is named"]);
    assert_says(&error_of(&emulator, "dot_f32", ONE_WARP, &[&0u64]), &["dot_f32: 1 arguments, the kernel takes 4"]);
    let wrong: &[&dyn Argument] = &[&0u64, &0u64, &0u64, &1u64];
    assert_says(&error_of(&emulator, "dot_f32", ONE_WARP, wrong), &["argument 3 has 8 bytes, the kernel takes 4"]);
}

#[test]
fn impossible_launches_are_refused() {
    let emulator = plain();
    let args: &[&dyn Argument] = &[&0u64, &0u64, &0u64, &0i32];
    for shape in [
        ([1, 1, 1], [1025, 1, 1], 0),
        ([1, 1, 1], [32, 1, 65], 0),
        ([0, 1, 1], [32, 1, 1], 0),
        ([1, 65536, 1], [32, 1, 1], 0),
        ([1, 1, 1], [32, 1, 1], 228 * 1024),
    ] {
        assert_says(&error_of(&emulator, "dot_f32", shape, args), &["dot_f32: a launch of grid", "not possible"]);
    }
}

#[test]
fn an_overrun_names_block_thread_and_address() {
    let error = dot(&plain(), 101).expect_err("element 100 is not there");
    assert_says(&error, &["dot_f32: block (0,0,0) thread 36: access to invalid address 0x"]);
    assert_eq!(dot(&plain(), 100), Ok(600.0));
}

#[test]
fn a_deadlock_names_who_waits() {
    let error = error_of(&plain(), "waits_for_ever", ([1, 1, 1], [64, 1, 1], 0), &[]);
    assert_says(&error, &["waits_for_ever: block (0,0,0)", "deadlock", "warp 1: alive ffffffff"]);
}

#[test]
fn a_stack_overflow_is_told_from_a_wild_access() {
    let emulator = plain();
    let out = Buffer::<f32>::new(&emulator, 1);
    assert_says(&error_of(&emulator, "overflows_its_stack", ONE_WARP, &[&out]), &["stack overflow"]);
}

#[test]
fn a_bad_buffer_is_refused() {
    let emulator = plain();
    let buffer = Buffer::of(&emulator, &[1f32; 4]);
    assert!(emulator.upload(buffer.address + 4, &[0; 13]).is_err());
    assert!(emulator.download(8, &mut [0; 4]).is_err());
    assert!(emulator.fill(buffer.address, 17, 0).is_err());
    assert!(emulator.free(buffer.address + 4).is_err());
    assert_eq!(buffer.read(), [1f32; 4]);
}

#[test]
fn blocks_that_write_the_same_element_race_and_neighbours_do_not() {
    if !HAS_RACE_CHECKER {
        return eprintln!("skipped: the race build, which needs g++");
    }
    for policy in [Policy::Forward, Policy::Random] {
        let emulator = emulator(Config { policy, race: true, os_threads: 2, ..Config::default() });
        let out = Buffer::<u16>::new(&emulator, 2);
        let shape = ([2, 1, 1], [1, 1, 1], 0);
        assert_says(
            &error_of(&emulator, "neighbours", shape, &[&out, &1i32]),
            &["neighbours: block", "race", "in another block"],
        );
        assert_eq!(launch(&emulator, "neighbours", shape, &[&out, &0i32]), Ok(()));
        assert_eq!(out.read(), [0x3f80; 2]);
    }
}

#[test]
fn threads_of_a_block_race_on_device_memory_without_a_barrier() {
    if !HAS_RACE_CHECKER {
        return eprintln!("skipped: the race build, which needs g++");
    }
    for config in Config::schedules(true) {
        let emulator = emulator(config);
        let (x, y) = (Buffer::<f32>::new(&emulator, 64), Buffer::<f32>::new(&emulator, 64));
        let shape = ([1, 1, 1], [64, 1, 1], 0);
        let error = error_of(&emulator, "hands_over", shape, &[&x, &y, &1i32]);
        assert_says(&error, &["hands_over: block", "race", "of block 0 with no barrier between"]);
        assert_eq!(launch(&emulator, "hands_over", shape, &[&x, &y, &0i32]), Ok(()));
        assert!(y.read().iter().zip((1..64).chain([0])).all(|(&found, want)| found == want as f32));
    }
}

#[test]
fn launches_from_many_threads_at_once() {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    assert_eq!(dot(&plain(), 100), Ok(600.0));
                    assert!(dot(&plain(), 200).is_err());
                }
            });
        }
    });
}
