//! `cargo bench --bench ops [-- FILTER]`: every op of the registry on the CPU backend.

use diem::backend::cpu::{Cpu, Options};
use diem::check::bench;

fn main() -> diem::Result<()> {
    // cargo itself passes options such as --bench
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let cpu = Cpu::new(Options::default())?;
    let peak = bench::peak::flops(&cpu);
    println!("{:?}, {} threads, {:.0} GFLOP/s at most", cpu.isa(), cpu.threads(), peak / 1e9);
    println!("{}", bench::BenchRow::head());
    bench::run(&filter, 0, &cpu, |row| println!("{}", row.line(peak)))
}
