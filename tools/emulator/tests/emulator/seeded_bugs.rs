//! Bugs seeded into the test kernels: every schedule of every build runs on each.

use super::{cases, device};
use diem_emulator::compile::{Build, in_parallel};
use diem_emulator::seeded::{Bug, failure, report};
use diem_emulator::{Config, Emulator, HAS_RACE_CHECKER};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

#[rustfmt::skip]
const BUGS: &[Bug] = &[
    Bug::new("gemm_bf16", "no barrier after the wait", "__syncthreads();  // the stage has arrived", ""),
    Bug::new("gemm_bf16", "no barrier before the stage is filled again", "__syncthreads();  // the stage is read", ""),
    Bug::new("gemm_bf16", "no wait for the stage", "cp_async_wait<1>();", ""),
    Bug::new("gemm_bf16", "the last stage is not waited for", "cp_async_wait<0>();", "cp_async_wait<1>();"),
    Bug::new("gemm_bf16", "another swizzle when reading", "chunk_a(stage, wm + i * 16 + (lane & 15), kk * 2 + (lane >> 4))", "chunk_a(stage, wm + i * 16 + (lane & 15), (kk * 2 + (lane >> 4)) ^ (lane & 1))"),
    Bug::new("gemm_bf16", "fragments of B swapped", "bf[j >> 1][(j & 1) * 2], bf[j >> 1][(j & 1) * 2 + 1]", "bf[j >> 1][j & 1], bf[j >> 1][(j & 1) + 2]"),
    Bug::new("gemm_bf16", "no guard of the K tail", "gr < M && gk < K", "gr < M"),
    Bug::new("gemm_bf16", "no guard of the M tail", "if (r < M && c < N)", "if (c < N)"),
    Bug::new("gemm_bf16", "misaligned store", "C + (size_t)r * N + c)", "C + (size_t)r * N + c + 1)"),
    Bug::new("dot", "no barrier between the warps' sums and their reader", "__syncthreads();", ""),
    Bug::new("dot", "one past the end of shared memory", "part[threadIdx.x / 32] = sum", "part[threadIdx.x / 32 + 1] = sum"),
    Bug::new("layer_norm", "a mask of half a warp", "0xffffffffu, v, o", "0x0000ffffu, v, o"),
    Bug::new("layer_norm", "one element too many", "i < n; i += 32", "i <= n; i += 32"),
    Bug::new("layer_norm", "a frame larger than the stack", "const float mean", "volatile char big[200000]; big[threadIdx.x] = 1; const float mean"),
    Bug::new("conv3x3", "no barrier after the tile is written", "__syncthreads();  // the tile is written", ""),
    Bug::new("conv3x3", "no barrier after the tile is read", "__syncthreads();  // the tile is read", ""),
    Bug::new("conv3x3", "a row of the halo missing", "i < 18 * 18", "i < 17 * 18"),
    Bug::new("conv3x3", "a row past the tile", "i < 18 * 18", "i < 19 * 18"),
    Bug::new("conv3x3", "return before a barrier", "float sum = 0.f;", "float sum = 0.f; if (ox >= W) return;"),
    Bug::new("conv3x3", "divergent barrier", "__syncthreads();  // the tile is written", "if (tx < 8) __syncthreads(); else\n__syncthreads();"),
    Bug::new("conv3x3", "blocks write each other's rows", "if (ox < W && oy < H) y", "if (ox < W && oy < H && oy + 1 == H) y[((size_t)k * H + oy - 5) * W + ox] = 0.f; if (ox < W && oy < H) y"),
    Bug::new("hopper_gemm", "a stage is filled before it is empty", "if (k >= STAGES) mbar_wait", "if (0) mbar_wait"),
    Bug::new("hopper_gemm", "a stage is read before it is full", "mbar_wait(f + s * 8, (k / STAGES) & 1);", ""),
    Bug::new("hopper_gemm", "a stage is released before wgmma has read it", "wgmma_wait<0>();\n    mbar_arrive(e + s * 8);\n  }", "mbar_arrive(e + s * 8);\n  }\n  wgmma_wait<0>();"),
    Bug::new("hopper_gemm", "wrong parity", "(k / STAGES) & 1)", "((k / STAGES) + 1) & 1)"),
    Bug::new("hopper_gemm", "wrong number of bytes expected", "mbar_arrive_tx(f + s * 8, 16384)", "mbar_arrive_tx(f + s * 8, 8192)"),
    Bug::new("hopper_gemm", "barriers not initialised", "mbar_init(e", "if (0) mbar_init(e"),
    Bug::new("hopper_gemm", "accumulators read before wgmma is done", "wgmma_wait<0>();", ""),
    Bug::silent("hopper_gemm", "no proxy fence after stores", "fence_proxy_async();", ""),
    Bug::new("hopper_gemm", "no barrier before wgmma", "__syncthreads();  // the tiles are written", ""),
    Bug::new("hopper_gemm", "no barrier after wgmma", "__syncthreads();  // the tiles are read", ""),
];

const LIBRARY: &str = "EMULATOR_TEST_LIBRARY";
const KERNEL: &str = "EMULATOR_TEST_KERNEL";

/// This test program, to run the cases of a kernel in a library.
pub fn cases_in(library: &Path, kernel: &str) -> Command {
    let mut child = Command::new(std::env::current_exe().expect("this test has a path"));
    child.args(["--exact", "seeded_bugs::cases_of_one_kernel", "--ignored", "--nocapture", "--test-threads=1"]);
    child.env(LIBRARY, library).env(KERNEL, kernel);
    child
}

/// The child: the cases of a kernel (or of all) in the library it is told, under every schedule, until one fails.
#[test]
#[ignore = "started by other tests"]
fn cases_of_one_kernel() {
    let (Ok(library), Ok(kernel)) = (std::env::var(LIBRARY), std::env::var(KERNEL)) else { return };
    let mut emulator = Emulator::open(Path::new(&library), Config::default()).expect("the library loads");
    for config in Config::schedules(false) {
        emulator.config = config;
        for (_, case) in cases::ALL.iter().filter(|(of, _)| kernel.is_empty() || *of == kernel) {
            if let Err(error) = case(&emulator) {
                eprintln!("error: {error}");
                std::process::exit(1);
            }
        }
    }
}

/// What a build notices of a bug.
fn notice(number: usize, build: Build) -> Option<String> {
    let bug = &BUGS[number];
    let scratch = device::scratch("bugs").join(build.name()).join(number.to_string());
    let library = bug.library(build, &device::kernels(), None, &scratch).unwrap_or_else(|e| panic!("{e}"));
    let limit = Duration::from_secs(30); // a case takes a tenth of a second
    failure(cases_in(&library, bug.kernel), limit, &scratch.join("log")).expect("this test can start itself")
}

#[test]
fn seeded_bugs_are_seen() {
    let builds = [Build::Plain, Build::Race].into_iter().filter(|&b| b == Build::Plain || HAS_RACE_CHECKER);
    let jobs: Vec<(usize, Build)> = builds.flat_map(|build| (0..BUGS.len()).map(move |i| (i, build))).collect();
    let notices = in_parallel(&jobs, |&(i, build)| notice(i, build));
    let results: Vec<_> = jobs.iter().zip(notices).map(|(&(i, build), notice)| (BUGS[i], build, notice)).collect();
    let missed = report(&results);
    assert!(missed.is_empty(), "{missed:#?}");
}
