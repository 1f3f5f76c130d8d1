//! Writes `docs/kernels-cifar.md`: every kernel that one forward and one VJP of the cifar network launch, with the resources
//! that ptxas reports and the time that the H100's data sheet allows.
//!
//! `cargo run --release --example kernels > docs/kernels-cifar.md`, where nvcc is found. Nothing runs on a device: the launches go
//! to a driver that only takes notes.

use diem::Result;
use diem::backend::cuda::driver::{Boxes, Counters, Driver, Graph, Launch, Properties, TensorMap};
use diem::backend::cuda::kernels::BUILD;
use diem::backend::cuda::{Cuda, Dtype, Options};
use diem::backend::{Backend, Keep, Shape};
use diem::diffusion::{Denoiser, Model, Sampler, Schedule, Tabulated};
use diem::nn::UNetConfig;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

const BATCH: usize = 256;
const STEPS: f64 = 256.0;
const ARCH: &str = "sm_90a";

/// NVIDIA, *H100 Tensor Core GPU* data sheet, SXM5: dense bf16, f32 outside tensor cores, HBM3.
const MATRIX_PEAK: f64 = 989.4e12;
const FFMA_PEAK: f64 = 66.9e12;
const BANDWIDTH: f64 = 3.35e12;
/// What is expected of them: the shares that are the targets of `diem bench`, and of the matrix peak no more than four fifths of
/// what bounds the products ([`bound`]).
const MATRIX_SHARE: f64 = 0.7;
const BANDWIDTH_SHARE: f64 = 0.85;

/// A streaming multiprocessor (compute capability 9.0, CUDA programming guide).
const MULTIPROCESSORS: u32 = 132;
const REGISTERS: u32 = 65536;
const SHARED: u32 = 228 << 10;
const SHARED_PER_BLOCK: u32 = 1 << 10; // that the system takes
const WARPS: u32 = 64;
const BLOCKS: u32 = 32;

/// A driver that notes what it is asked for.
struct Notes {
    properties: Properties,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    launches: Vec<Launch>,
    sizes: BTreeMap<u64, usize>, // of all arrays, by address
    counters: Counters,
}

impl Notes {
    fn new() -> Self {
        let properties = Properties {
            name: "notes".to_owned(),
            arch: (9, 0),
            multiprocessors: MULTIPROCESSORS,
            shared_memory: SHARED - SHARED_PER_BLOCK,
            memory: 80 << 30,
            cache: 50 << 20,
            wgmma: true,
        };
        Self { properties, state: Mutex::default() }
    }
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }
}

impl Driver for Notes {
    fn name(&self) -> String {
        "notes".to_owned()
    }
    fn properties(&self) -> &Properties {
        &self.properties
    }
    fn free_memory(&self) -> Result<usize> {
        Ok(self.properties.memory)
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        let mut state = self.state();
        // high, as on a device, so that no pair of extents looks like an address
        let end = state.sizes.last_key_value().map_or(0x7f00 << 32, |(address, bytes)| address + *bytes as u64);
        let address = end.next_multiple_of(1 << 12);
        state.sizes.insert(address, bytes);
        Ok(address)
    }
    fn free(&self, _address: u64) -> Result<()> {
        Ok(())
    }
    fn upload(&self, _address: u64, _host: &[u8]) -> Result<()> {
        Ok(())
    }
    fn download(&self, _address: u64, host: &mut [u8]) -> Result<()> {
        host.fill(0);
        Ok(())
    }
    fn tensor_map(&self, _boxes: &Boxes) -> Result<TensorMap> {
        Ok(TensorMap::default())
    }
    unsafe fn launch(&self, launch: &Launch) -> Result<()> {
        self.state().launches.push(launch.clone());
        Ok(())
    }
    fn graph(&self, _launches: &[Launch]) -> Result<Box<dyn Graph>> {
        Err(diem::Error::Unsupported("graphs of notes".to_owned()))
    }
    fn pace(&self) -> Result<()> {
        Ok(())
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn counters(&self) -> Counters {
        self.state().counters
    }
}

impl State {
    /// The arrays that a launch is given, each once, by address and size.
    fn arrays(&self, launch: &Launch) -> BTreeMap<u64, usize> {
        let words = launch.args.bytes().flat_map(|argument| argument.chunks_exact(8));
        let words = words.map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes")));
        let array = |word: u64| {
            let (address, bytes) = self.sizes.range(..=word).next_back()?;
            (word < address + *bytes as u64).then_some((*address, *bytes))
        };
        words.filter_map(array).collect()
    }
    fn bytes(&self, launch: &Launch) -> f64 {
        self.arrays(launch).values().map(|bytes| *bytes as f64).sum()
    }
    /// What a launch multiplies, for people, and its floating point operations; none where they do not count.
    fn work(&self, launch: &Launch) -> (String, f64) {
        let args: Vec<&[u8]> = launch.args.bytes().collect();
        let int = |bytes: &[u8], at: usize| i32::from_ne_bytes(bytes[at..at + 4].try_into().expect("4 bytes")) as f64;
        let element = if launch.kernel.ends_with("bf16") { 2.0 } else { 4.0 };
        if launch.kernel.starts_with("conv2d_") && args[0].len() > 400 {
            // Conv2dArgs: four phases of 104 bytes (two windows of 40, the weights, h, w, a, b), unused ones zero, then y, n,
            // h, w, c
            const PHASE: usize = 104;
            let (args, y) = (args[0], 4 * PHASE);
            let [n, h, w, c] = [8, 12, 16, 20].map(|at| int(args, y + at));
            let phases = (0..4).map(|i| {
                let phase = &args[i * PHASE..][..PHASE];
                let weights = u64::from_ne_bytes(phase[80..88].try_into().expect("8 bytes"));
                let elements = self.sizes.get(&weights).map_or(0.0, |bytes| *bytes as f64 / element);
                let depth = elements / (c / 32.0).ceil() / 32.0;
                (n * int(phase, 88) * int(phase, 92) * depth, depth)
            });
            let phases: Vec<_> = phases.collect();
            let products: f64 = phases.iter().map(|phase| phase.0).sum();
            return (format!("{h} x {w}, {} to {c}", phases[0].1), 2.0 * c * products);
        }
        if launch.kernel.starts_with("attention_") {
            let [tokens, d] = [3, 2].map(|last| int(args[args.len() - last], 0));
            let factor = match launch.kernel {
                kernel if kernel.contains("forward") => 4.0,
                kernel if kernel.contains("vjp_q") => 6.0,
                _ => 8.0,
            };
            let heads = BATCH as f64 * f64::from(launch.grid[1]);
            return (format!("{tokens} tokens, heads of {d}"), factor * tokens * tokens * d * heads);
        }
        (String::new(), 0.0)
    }
}

/// Blocks of this launch that a multiprocessor holds.
fn blocks_per_multiprocessor(launch: &Launch, registers: u32, shared: u32) -> u32 {
    let warps = launch.block.iter().product::<u32>().div_ceil(32);
    let per_warp = (registers * 32).next_multiple_of(256);
    let by_registers = (REGISTERS / 4 / per_warp * 4).min(WARPS) / warps; // a quarter of the warps on each scheduler
    let by_shared = SHARED / (launch.shared + shared + SHARED_PER_BLOCK);
    by_registers.min(by_shared).min(BLOCKS)
}

/// `Conv2dTiles`, of a convolution by wgmma: how many, n, h, w, log_h, log_w, and the rows more of two inputs' boxes.
fn conv2d_tiles(launch: &Launch) -> Option<[u32; 8]> {
    let tiles = launch.args.bytes().nth(3).filter(|_| launch.kernel.contains("wgmma"))?;
    Some(std::array::from_fn(|i| u32::from_ne_bytes(tiles[4 * i..4 * i + 4].try_into().expect("4 bytes"))))
}

/// Tiles of this launch: blocks, or what persistent blocks take in turn.
fn tiles(launch: &Launch) -> u32 {
    conv2d_tiles(launch).map_or(launch.grid.iter().product(), |tiles| tiles[0])
}

/// The share of the matrix peak to which shared memory or L2 bounds the products: `docs/kernels.md`.
fn bound(launch: &Launch) -> f64 {
    let Some([.., more, _]) = conv2d_tiles(launch) else { return 0.57 };
    let shared = more > 0 && !launch.kernel.contains("merged"); // one input of a merge has its own boxes
    match (launch.kernel.contains("256x128"), shared) {
        (true, true) => 1.0,
        (true, false) => 0.81,
        (false, true) => 0.86,
        (false, false) => 0.61,
    }
}

/// One table; returns the sums of floors and of expected times in seconds.
fn table(state: &State, launches: &[Launch]) -> (f64, f64) {
    println!(
        "| kernel | work | calls | tiles | threads | registers | shared, KiB | blocks/SM | waves | GFLOP | MB | floor, µs | expected, µs |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let mut rows: Vec<(Launch, String, f64, f64, usize)> = Vec::new();
    for launch in launches {
        let ((label, flops), bytes) = (state.work(launch), state.bytes(launch));
        let same = rows
            .iter_mut()
            .find(|row| (row.0.kernel, row.0.grid, &row.1) == (launch.kernel, launch.grid, &label) && row.3 == bytes);
        match same {
            Some(row) => row.4 += 1,
            None => rows.push((launch.clone(), label, flops, bytes, 1)),
        }
    }
    let resources: BTreeMap<_, _> = BUILD
        .modules
        .iter()
        .flat_map(|module| module.resources)
        .filter(|resources| resources.arch == ARCH)
        .map(|resources| (resources.kernel, resources))
        .collect();
    let mut sums = (0.0, 0.0);
    let time = |flops: f64, bytes: f64, kernel: &str, matrix: f64, memory: f64| {
        let peak = if kernel.ends_with("f32") || kernel.contains("ffma") { FFMA_PEAK } else { MATRIX_PEAK };
        (flops / (peak * matrix)).max(bytes / (BANDWIDTH * memory))
    };
    let mut lines: Vec<(f64, String)> = Vec::new();
    for (launch, label, flops, bytes, calls) in &rows {
        let taken = resources.get(launch.kernel);
        let (registers, shared) = taken.map_or((0, 0), |taken| (taken.registers, taken.shared));
        let resident = blocks_per_multiprocessor(launch, registers, shared);
        let tiles = tiles(launch);
        let waves = f64::from(tiles) / f64::from((resident * MULTIPROCESSORS).max(1));
        let floor = time(*flops, *bytes, launch.kernel, 1.0, 1.0);
        // the last wave takes as long as a full one where blocks are few and long
        let tail = if *flops > 0.0 { waves.ceil() / waves } else { 1.0 };
        let share = MATRIX_SHARE.min(0.8 * bound(launch));
        let expected = time(*flops * tail, *bytes, launch.kernel, share, BANDWIDTH_SHARE);
        sums.0 += floor * *calls as f64;
        sums.1 += expected * *calls as f64;
        let flops = if *flops > 0.0 { format!("{:.1}", flops / 1e9) } else { String::new() };
        let line = format!(
            "| `{}` | {label} | {calls} | {tiles} | {} | {registers} | {:.0} | {resident} | {waves:.1} | {flops} | {:.1} | {:.1} | {:.1} |",
            launch.kernel,
            launch.block.iter().product::<u32>(),
            f64::from(launch.shared + shared) / 1024.0,
            bytes / 1e6,
            floor * 1e6,
            expected * 1e6,
        );
        lines.push((expected * *calls as f64, line));
    }
    lines.sort_by(|a, b| b.0.total_cmp(&a.0));
    lines.iter().for_each(|(_, line)| println!("{line}"));
    println!();
    sums
}

fn main() -> Result<()> {
    if let Some(why) = diem::backend::cuda::kernels::missing() {
        return Err(diem::Error::Unsupported(why));
    }
    let notes = Arc::new(Notes::new());
    let cuda = Cuda::new(notes.clone(), Options { precision: Dtype::Bf16, record: true, poison: false });
    let config = UNetConfig::preset("cifar").expect("a preset");
    let image = Shape::new(BATCH, 32, 32, 3);
    let model = Model::initial(&cuda, config, image.with_n(1), true, 0)?;
    let plan = Sampler::default().plan(Schedule::default(), STEPS as usize)?;
    let modulations = Tabulated::new(&cuda, &model, &plan);
    let first = notes.state().launches.len();
    let condition = model.condition(&cuda, &[plan.sigma_end], Keep::Input);
    let computed = notes.state().launches.split_off(first).len();
    modulations.condition(&cuda, &[plan.sigma_end], Keep::Input);
    let picked = notes.state().launches.split_off(first).len();
    let x = cuda.zeros(image);
    let since = |from: usize| notes.state().launches.split_off(from);
    let first = notes.state().launches.len();
    let (y, saved) = model.forward(&cuda, &x, &condition, Keep::Input);
    let forward = since(first);
    model.vjp(&cuda, &condition, &saved.expect("kept"), &y);
    let vjp = since(first);

    let state = notes.state();
    let names: BTreeSet<&str> = BUILD.modules.iter().flat_map(|module| module.kernels).copied().collect();
    print!("{}", include_str!("head.md"));
    println!(
        "The program has {} kernels in {} files, compiled by {}.\n",
        names.len(),
        BUILD.modules.len(),
        BUILD.nvcc.unwrap_or("none")
    );
    println!("## Forward, {BATCH} images\n");
    let (floor_forward, expected_forward) = table(&state, &forward);
    println!("## VJP, {BATCH} images\n");
    let (floor_vjp, expected_vjp) = table(&state, &vjp);
    println!("## A step\n");
    println!("| | launches | floor, ms | expected, ms |\n|---|--:|--:|--:|");
    println!("| forward | {} | {:.1} | {:.1} |", forward.len(), floor_forward * 1e3, expected_forward * 1e3);
    println!("| VJP | {} | {:.1} | {:.1} |", vjp.len(), floor_vjp * 1e3, expected_vjp * 1e3);
    let (floor, expected) = (floor_forward + floor_vjp, expected_forward + expected_vjp);
    println!("| modulations, picked from the run's table; in each step they would be {computed} | {picked} | | |");
    println!("| MMPS(1), without solver and sampler | | {:.1} | {:.1} |\n", floor * 1e3, expected * 1e3);
    let images = |step: f64| BATCH as f64 / STEPS / step;
    println!("At {STEPS} steps: {:.0} images/s at the floor, {:.0} as expected.", images(floor), images(expected));
    Ok(())
}
