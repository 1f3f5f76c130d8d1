//! What goes wrong in a launch comes back as an error that names it, and the process lives on.

mod common;
use diem_emulator::{Config, Emulator};

/// `dot_f32` over `n` elements of two buffers of 100.
fn dot(emulator: &Emulator, n: i32) -> Result<f32, String> {
    let [a, b, out] = [400, 400, 4].map(|bytes| emulator.alloc(bytes).expect("memory"));
    emulator.upload(a, bytemuck::cast_slice(&[2f32; 100])).unwrap();
    emulator.upload(b, bytemuck::cast_slice(&[3f32; 100])).unwrap();
    emulator.fill(out, 4, 0).unwrap();
    let args: [&[u8]; 4] = [&a.to_ne_bytes(), &b.to_ne_bytes(), &out.to_ne_bytes(), &n.to_ne_bytes()];
    // SAFETY: three live buffers; an `n` that is too large is what the test is about, and meets the guard page.
    let result = unsafe { emulator.launch("dot_f32", [1, 1, 1], [64, 1, 1], 8, &args) };
    let mut sum = [0f32];
    emulator.download(out, bytemuck::cast_slice_mut(&mut sum)).unwrap();
    for buffer in [a, b, out] {
        emulator.free(buffer).unwrap();
    }
    result.map(|()| sum[0])
}

#[test]
fn a_kernel_runs_under_every_schedule() {
    for config in common::schedules() {
        assert_eq!(dot(&common::emulator(config), 100), Ok(600.0), "{config:?}");
    }
}

#[test]
fn an_overrun_is_an_error_and_the_process_lives_on() {
    let emulator = common::emulator(Config::default());
    let error = dot(&emulator, 101).unwrap_err();
    assert!(error.contains("dot_f32: block (0,0,0) thread 36") && error.contains("invalid address"), "{error}");
    assert_eq!(dot(&emulator, 100), Ok(600.0));
}
