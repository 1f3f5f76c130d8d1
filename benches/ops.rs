//! `cargo bench --bench ops [-- FILTER]`: every op of the registry on the CPU backend.

use diem::backend::cpu::{Cpu, Options};
use diem::check::bench;

fn main() -> diem::Result<()> {
    // cargo itself passes options such as --bench
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let cpu = Cpu::new(Options::default())?;
    let peak = bench::peak::flops(&cpu);
    println!("{:?}, {} threads, {:.0} GFLOP/s at most", cpu.isa(), cpu.threads(), peak / 1e9);
    println!("{:<16}{:<40}{:<20}{:>10}{:>10}{:>8}{:>8}", "op", "size", "call", "µs", "GFLOP/s", "of peak", "GB/s");
    bench::run(&filter, 0, &cpu, |row| {
        println!(
            "{:<16}{:<40}{:<20}{:>10.1}{:>10.1}{:>7.0}%{:>8.1}",
            row.op,
            row.size,
            row.what,
            1e6 * row.seconds,
            row.gflops(),
            100.0 * row.flops / row.seconds / peak,
            row.gbytes(),
        );
    })
}
