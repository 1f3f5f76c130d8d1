//! A test of the tests: bugs seeded into correct kernels must be seen. Each bug is one replacement in a kernel's source; the
//! kernel is compiled again, and its cases run under every schedule in a process of their own, because a bug may hang.

use super::{cases, device};
use diem_emulator::compile::{Build, in_parallel, object_name};
use diem_emulator::{Config, Emulator, HAS_RACE_CHECKER, compiler};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Which builds see a bug.
#[derive(Clone, Copy, PartialEq)]
enum Seen {
    /// Both.
    Everywhere,
    /// The race build only: no schedule makes it change a result.
    ByRaceChecker,
}
use Seen::{ByRaceChecker, Everywhere};

struct Bug {
    name: &'static str,
    kernel: &'static str,
    /// Must occur in the source; its first occurrence is replaced.
    from: &'static str,
    to: &'static str,
    seen: Seen,
}

const fn bug(kernel: &'static str, name: &'static str, from: &'static str, to: &'static str) -> Bug {
    Bug { name, kernel, from, to, seen: Everywhere }
}

const fn silent_bug(kernel: &'static str, name: &'static str, from: &'static str, to: &'static str) -> Bug {
    Bug { name, kernel, from, to, seen: ByRaceChecker }
}

#[rustfmt::skip]
const BUGS: &[Bug] = &[
    bug("gemm_bf16", "no barrier after the wait", "__syncthreads();  // the stage has arrived", ""),
    bug("gemm_bf16", "no barrier before the stage is filled again", "__syncthreads();  // the stage is read", ""),
    bug("gemm_bf16", "no wait for the stage", "cp_async_wait<1>();", ""),
    bug("gemm_bf16", "the last stage is not waited for", "cp_async_wait<0>();", "cp_async_wait<1>();"),
    bug("gemm_bf16", "another swizzle when reading", "chunk_a(stage, wm + i * 16 + (lane & 15), kk * 2 + (lane >> 4))", "chunk_a(stage, wm + i * 16 + (lane & 15), (kk * 2 + (lane >> 4)) ^ (lane & 1))"),
    bug("gemm_bf16", "fragments of B swapped", "bf[j >> 1][(j & 1) * 2], bf[j >> 1][(j & 1) * 2 + 1]", "bf[j >> 1][j & 1], bf[j >> 1][(j & 1) + 2]"),
    bug("gemm_bf16", "no guard of the K tail", "gr < M && gk < K", "gr < M"),
    bug("gemm_bf16", "no guard of the M tail", "if (r < M && c < N)", "if (c < N)"),
    bug("gemm_bf16", "misaligned store", "C + (size_t)r * N + c)", "C + (size_t)r * N + c + 1)"),
    bug("dot", "no barrier between the warps' sums and their reader", "__syncthreads();", ""),
    bug("dot", "one past the end of shared memory", "part[threadIdx.x / 32] = sum", "part[threadIdx.x / 32 + 1] = sum"),
    bug("layer_norm", "a mask of half a warp", "0xffffffffu, v, o", "0x0000ffffu, v, o"),
    bug("layer_norm", "one element too many", "i < n; i += 32", "i <= n; i += 32"),
    bug("layer_norm", "a frame larger than the stack", "const float mean", "volatile char big[200000]; big[threadIdx.x] = 1; const float mean"),
    bug("conv3x3", "no barrier after the tile is written", "__syncthreads();  // the tile is written", ""),
    bug("conv3x3", "no barrier after the tile is read", "__syncthreads();  // the tile is read", ""),
    bug("conv3x3", "a row of the halo missing", "i < 18 * 18", "i < 17 * 18"),
    bug("conv3x3", "a row past the tile", "i < 18 * 18", "i < 19 * 18"),
    bug("conv3x3", "return before a barrier", "float sum = 0.f;", "float sum = 0.f; if (ox >= W) return;"),
    bug("conv3x3", "divergent barrier", "__syncthreads();  // the tile is written", "if (tx < 8) __syncthreads(); else\n__syncthreads();"),
    bug("conv3x3", "blocks write each other's rows", "if (ox < W && oy < H) y", "if (ox < W && oy < H && oy + 1 == H) y[((size_t)k * H + oy - 5) * W + ox] = 0.f; if (ox < W && oy < H) y"),
    bug("hopper_gemm", "a stage is filled before it is empty", "if (k >= STAGES) mbar_wait", "if (0) mbar_wait"),
    bug("hopper_gemm", "a stage is read before it is full", "mbar_wait(f + s * 8, (k / STAGES) & 1);", ""),
    bug("hopper_gemm", "a stage is released before wgmma has read it", "wgmma_wait<0>();\n    mbar_arrive(e + s * 8);\n  }", "mbar_arrive(e + s * 8);\n  }\n  wgmma_wait<0>();"),
    bug("hopper_gemm", "wrong parity", "(k / STAGES) & 1)", "((k / STAGES) + 1) & 1)"),
    bug("hopper_gemm", "wrong number of bytes expected", "mbar_arrive_tx(f + s * 8, 16384)", "mbar_arrive_tx(f + s * 8, 8192)"),
    bug("hopper_gemm", "barriers not initialised", "mbar_init(e", "if (0) mbar_init(e"),
    bug("hopper_gemm", "accumulators read before wgmma is done", "wgmma_wait<0>();", ""),
    silent_bug("hopper_gemm", "no proxy fence after stores", "fence_proxy_async();", ""),
    bug("hopper_gemm", "no barrier before wgmma", "__syncthreads();  // the tiles are written", ""),
    bug("hopper_gemm", "no barrier after wgmma", "__syncthreads();  // the tiles are read", ""),
];

const LIMIT: Duration = Duration::from_secs(20);
const LIBRARY: &str = "EMULATOR_TEST_LIBRARY";
const KERNEL: &str = "EMULATOR_TEST_KERNEL";

/// Compiles a kernel with its bug and runs its cases; what was noticed, if anything.
fn notice(bug: &Bug, number: usize, build: Build) -> Option<String> {
    let folder = device::scratch("bugs").join(build.name()).join(number.to_string());
    std::fs::create_dir_all(&folder).expect("the target folder is writable");
    let name = format!("{}.cu", bug.kernel);
    let source = std::fs::read_to_string(device::kernels().join(&name)).expect("the kernel is there");
    let with_bug = source.replacen(bug.from, bug.to, 1);
    assert_ne!(with_bug, source, "{}: {} does not occur", bug.name, bug.from);
    let kernel = folder.join(&name);
    std::fs::write(&kernel, with_bug).expect("the target folder is writable");

    let compiler = compiler();
    let object = folder.join(object_name(&kernel));
    compiler.object(build, true, &kernel, &object).unwrap_or_else(|e| panic!("{}: {e}", bug.name));
    let mut objects = compiler.runtime_objects(build).expect("the build script made them");
    objects.push(object);
    let objects: Vec<&Path> = objects.iter().map(|o| o.as_path()).collect();
    let library = folder.join("kernels.so");
    compiler.link(build, &objects, &library).expect("it links");

    let mut child = Command::new(std::env::current_exe().expect("this test has a path"));
    child.args(["--exact", "seeded_bugs::cases_of_one_kernel", "--ignored", "--nocapture", "--test-threads=1"]);
    child.env(LIBRARY, library).env(KERNEL, bug.kernel).env("RUST_BACKTRACE", "0");
    run_within_limit(child)
}

/// Why a process failed, or that it did not end in time; nothing if it succeeded.
fn run_within_limit(mut command: Command) -> Option<String> {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("this test can start itself");
    let start = Instant::now();
    let status = loop {
        match child.try_wait().expect("the child is ours") {
            Some(status) => break status,
            None if start.elapsed() > LIMIT => {
                child.kill().expect("the child is ours");
                child.wait().expect("the child is ours");
                return Some("does not end".into());
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let message = std::io::read_to_string(child.stderr.take().expect("it is piped")).unwrap_or_default();
    let reason = message.lines().find(|l| l.starts_with("bug: ")).unwrap_or("").trim_start_matches("bug: ");
    (!status.success()).then(|| if reason.is_empty() { status.to_string() } else { reason.into() })
}

/// The child: every case of a kernel, in the library it is told, under every schedule, until one fails.
#[test]
#[ignore = "started by seeded_bugs_are_seen"]
fn cases_of_one_kernel() {
    let (Ok(library), Ok(kernel)) = (std::env::var(LIBRARY), std::env::var(KERNEL)) else { return };
    let mut emulator = Emulator::open(Path::new(&library), Config::default()).expect("the library loads");
    for config in Config::schedules(false) {
        emulator.config = config;
        for (_, case) in cases::ALL.iter().filter(|(of, _)| *of == kernel) {
            if let Err(error) = case(&emulator) {
                eprintln!("bug: {error}");
                std::process::exit(1);
            }
        }
    }
}

/// The race build sees every bug, and the plain build every one that is not marked as silent.
#[test]
fn seeded_bugs_are_seen() {
    let builds: &[Build] = if HAS_RACE_CHECKER { &[Build::Plain, Build::Race] } else { &[Build::Plain] };
    let jobs: Vec<(usize, Build)> = builds.iter().flat_map(|&b| (0..BUGS.len()).map(move |i| (i, b))).collect();
    let noticed = in_parallel(&jobs, |&(i, build)| notice(&BUGS[i], i, build));
    let mut missed = Vec::new();
    for &build in builds {
        let mut seen = 0;
        for (&(i, _), notice) in jobs.iter().zip(&noticed).filter(|((_, b), _)| *b == build) {
            let Bug { name, kernel, .. } = BUGS[i];
            println!("{:6} {kernel}, {name}: {}", build.name(), notice.as_deref().unwrap_or("not seen"));
            seen += usize::from(notice.is_some());
            if notice.is_none() && (build == Build::Race || BUGS[i].seen == Everywhere) {
                missed.push((build.name(), kernel, name));
            }
        }
        println!("the {} build sees {seen} of {} seeded bugs", build.name(), BUGS.len());
    }
    assert!(missed.is_empty(), "{missed:#?}");
}
