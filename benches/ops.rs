//! `cargo bench --bench ops [-- FILTER]`: every op of the registry on the CPU backend.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::timed::Timed;
use diem::check::bench::{self, BenchRow, Sizes, Unit};

fn main() -> diem::Result<()> {
    // cargo itself passes options such as --bench
    let filter = std::env::args().skip(1).find(|arg| !arg.starts_with('-')).unwrap_or_default();
    let cpu = Cpu::new(Options::default())?;
    let roof = cpu.roofline()?;
    let (peak, copy) = (roof.flops.unwrap_or(f64::NAN) / 1e9, roof.copy / 1e9);
    println!("{:?}, {} threads, {peak:.0} GFLOP/s, {copy:.1} GB/s at most", cpu.isa(), cpu.threads());
    let unit = Unit::of(&roof);
    println!("{}", BenchRow::head(unit));
    bench::run(&filter, Sizes::Cifar(4), &cpu, &roof, |row| println!("{}", row.line(unit)))
}
