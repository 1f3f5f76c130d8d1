//! Bugs seeded into the kernels: the tests of the op must see each, in the plain and in the race build. A bug is a line of
//! `BUGS`; its kernel is compiled again, and the test named beside it runs on the result in a process of its own.

use crate::harness::skipped_on_one_device;
use diem_emulator::compile::{Build, in_parallel};
use diem_emulator::seeded::{Bug, failure, report};
use diem_emulator::{HAS_RACE_CHECKER, PLAIN_VARIABLE, RACE_VARIABLE, compiler, kernel_objects};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// A bug, and the test that must fail.
#[rustfmt::skip]
const BUGS: &[(Bug, &str)] = &[
    (Bug::new("conv2d_f32", "no barrier before a stage is filled again", "cp_async_wait<STAGES - 2>();\n    __syncthreads();", "cp_async_wait<STAGES - 2>();"), "conv2d::convolutions"),
    (Bug::new("conv2d_bf16", "a stage is multiplied before it has arrived", "cp_async_wait<STAGES - 2>();", "cp_async_wait<STAGES - 1>();"), "conv2d::linear_layers"),
    (Bug::new("conv2d_bf16", "pixels past the last are stored", "return m < args.n * phase.h * phase.w ? m : -1;", "return m;"), "conv2d::linear_layers"),
    (Bug::new("conv2d_vjp_params", "no barrier before a stage is filled again", "__syncthreads();", ""), "conv2d::linear_layers"),
    (Bug::new("conv2d_vjp_params", "pixels past the last are read", "if (n[pass] >= args.n || k >= args.c_out) return nullptr;", "if (k >= args.c_out) return nullptr;"), "conv2d::convolutions"),
    (Bug::new("conv2d_sm90", "a stage is filled before it is empty", "mbar_wait(empty(stage), parity ^ 1);", ""), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("conv2d_sm90", "a stage is read before it is full", "rings.w.wait();", ""), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "a stage is released while wgmma reads it", "wgmma_wait<1>();", "wgmma_wait<2>();"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "the last stage of a tile is not released", "wgmma_wait<0>();\n  rings.w.release(step);", "wgmma_wait<0>();"), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("conv2d_sm90", "sums are read before they are there", "wgmma_wait<0>();\n  rings.w.release(step);", "rings.w.release(step);"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "the parity of a round does not turn", "stage = 0, parity ^= 1;", "stage = 0;"), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("conv2d_sm90", "fewer bytes are waited for than come", "mbar_arrive_tx(full(stage), bytes)", "mbar_arrive_tx(full(stage), bytes / 2)"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "one warpgroup empties a stage", "CONSUMERS / 32);", "CONSUMERS / 64);"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "rows and columns of taps are swapped", "c, x + s, y + r, tile.n", "c, x + r, y + s, tile.n"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "a box starts at the same image in every tile", "c, x + s, y + r, tile.n", "c, x + s, y + r, 0"), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("conv2d_sm90", "a box is released before its last tap", "if (box >= 0 && r == 0) rings.x.release(box);", "if (r == 0) rings.x.release(rings.x.stage);"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "images of a shared box lie closer than they do", "(image * tiles.more[i] + r)", "r"), "wgmma::convolutions_and_linear_layers"),
    (Bug::new("conv2d_sm90", "weights of the first channels in every tile", "0, tile.c, k +", "0, 0, k +"), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("conv2d_sm90", "pixels past the last image are stored", "if (o.n >= args.n || o.p", "if (o.p"), "wgmma::blocks_go_on_to_their_next_tiles"),
    (Bug::new("vector", "a sum is read before it is written", "scratch[threadIdx.x / 32] = v;\n  __syncthreads();", "scratch[threadIdx.x / 32] = v;"), "vector::dots_accumulate_in_f64"),
    (Bug::new("vector", "no tail of a copy", "GRID_STRIDE(i, words % 4) y[", "if (0) GRID_STRIDE(i, words % 4) y["), "vector::casts_copies_and_fills"),
    (Bug::new("vector", "rows of the first array's length", "const uint32_t row = arrays.row[blockIdx.y];", "const uint32_t row = arrays.row[0];"), "vector::a_row_is_picked_from_many_arrays"),
    (Bug::new("cg", "scratch is written while the sum before is read", "v = warp_sum(v);\n  __syncthreads();", "v = warp_sum(v);"), "sampling::conjugate_gradient_iterations"),
    (Bug::new("cg", "a sample that stopped goes on", "if (*at.status != (float)kRunning) return;", ""), "sampling::conjugate_gradient_iterations"),
    (Bug::new("cg", "a direction that has lost conjugacy is followed", "pq > 0 && rq > 0 &&", "pq > 0 &&"), "sampling::conjugate_gradient_iterations"),
    (Bug::new("cg", "residual of the first sample", "const double beta = rr_next / rr;", "const double beta = rr_next / *(at.rr - blockIdx.x);"), "sampling::conjugate_gradient_iterations"),
    (Bug::new("bicgstab", "a sample that stopped goes on", "if (status[n] != (float)kRunning) return;", ""), "sampling::bicgstab_iterations"),
    (Bug::new("bicgstab", "every sample has the first one's numbers", "numbers += 3 * n,", "numbers += 0 * n,"), "sampling::bicgstab_iterations"),
    (Bug::new("least_squares", "the sign of a rotated right-hand side", "(float)(-sin * rhs)", "(float)(sin * rhs)"), "sampling::least_squares_of_each_sample"),
    (Bug::new("least_squares", "columns that a sample has not are left", "for (uint32_t row = count; row < k; row++) y.x[row][i] = 0.f;", ""), "sampling::least_squares_of_each_sample"),
    (Bug::new("mask", "every sample has the first mask", "mask_rows == 1 ? i % row : i", "i % row"), "sampling::masks_hide_what_was_not_measured"),
    (Bug::new("dense", "no guard of the last warps", "if (out >= n * m) return;", ""), "sampling::matrices_and_their_adjoints"),
    (Bug::new("fourier", "roots are read before they are there", "s);\n  }\n  __syncthreads();", "s);\n  }"), "sampling::columns_of_k_space"),
    (Bug::new("fourier", "every sample has the first mask", "(mask_rows == 1 ? 0 : (size_t)sample * w)", "0"), "sampling::columns_of_k_space"),
    (Bug::new("filter", "the stride of the other side", "minus(s * i + row, a, h)", "minus(i + row, a, h)"), "sampling::periodic_filters"),
    (Bug::new("filter", "elements between those kept count", "if (i % s != 0) continue;", ""), "sampling::periodic_filters"),
    (Bug::new("noise", "four elements where fewer are left", "j < min(4u, row - 4 * block)", "j < 4u"), "sampling::noise_has_the_bits_of_the_cpu"),
    (Bug::new("precondition", "every sample has the first factor", "b.row(i / row)", "b.row(0)"), "sampling::preconditioning_changes_the_type"),
    (Bug::new("channel_norm", "variance of a lane's own channels", "fmaf(g.sum(squares), scale, kEps)", "fmaf(squares, scale, kEps)"), "channel_norm::forward"),
    (Bug::new("channel_norm", "the means of a pixel are read before they are written", "rstd[sample + pixel], 0.f);\n  }\n  __syncthreads();", "rstd[sample + pixel], 0.f);\n  }"), "channel_norm::parameter_gradients_add_up"),
    (Bug::new("channel_norm", "columns are summed before all threads have theirs", "= acc[s][w];\n      __syncthreads();", "= acc[s][w];"), "channel_norm::parameter_gradients_add_up"),
    (Bug::new("attention", "a tile is multiplied before all threads have brought it", "cp_async_wait<0>();\n  __syncthreads();", "cp_async_wait<0>();"), "attention::tensor_cores_at_every_width"),
    (Bug::new("attention", "keys past the last token count", "if (left < COLS) {", "if (false) {"), "attention::tensor_cores_at_every_width"),
];

const LIMIT: Duration = Duration::from_secs(120);

/// What a build notices of a bug.
fn notice(number: usize, build: Build) -> Option<String> {
    let (bug, test) = &BUGS[number];
    let scratch =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("seeded_bugs").join(build.name()).join(number.to_string());
    let kernels = compiler().headers;
    let library = bug.library(build, &kernels, Some(&kernel_objects(build)), &scratch);
    let library = library.unwrap_or_else(|e| panic!("{e}"));
    let mut child = Command::new(std::env::current_exe().expect("the program of this test"));
    child.args(["--exact", test, "--test-threads=1"]).env("RUST_BACKTRACE", "0");
    child.env(if build == Build::Race { RACE_VARIABLE } else { PLAIN_VARIABLE }, library);
    failure(child, LIMIT, &scratch.join("log")).expect("the test can be started")
}

#[test]
fn seeded_bugs_are_seen() {
    if skipped_on_one_device("its bugs are compiled for the emulator") {
        return;
    }
    let builds = [Build::Plain, Build::Race].into_iter().filter(|&b| b == Build::Plain || HAS_RACE_CHECKER);
    let jobs: Vec<(usize, Build)> = builds.flat_map(|build| (0..BUGS.len()).map(move |i| (i, build))).collect();
    let notices = in_parallel(&jobs, |&(i, build)| notice(i, build));
    let results: Vec<_> = jobs.iter().zip(notices).map(|(&(i, build), notice)| (BUGS[i].0, build, notice)).collect();
    let missed = report(&results);
    assert!(missed.is_empty(), "{missed:#?}");
}
