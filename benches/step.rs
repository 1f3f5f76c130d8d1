//! `cargo bench --bench step [-- PRESET [BATCH [ITERATIONS]]]`: forward and MMPS step of an untrained U-Net.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::timed::Timed;
use diem::backend::{Backend, Shape};
use diem::check::bench::{Unit, step};
use diem::diffusion::Model;
use diem::nn::UNetConfig;

fn main() -> diem::Result<()> {
    // cargo itself passes options such as --bench
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let preset = args.next().unwrap_or_else(|| "small".into());
    let mut number = |default| args.next().map_or(default, |arg| arg.parse().expect("a number"));
    let (batch, iterations) = (number(4), number(1));

    let config = UNetConfig::preset(&preset).expect("cifar, mri or small");
    let size = 32;
    let cpu = Cpu::new(Options::default())?;
    let roof = cpu.roofline()?;
    let (unit, peak) = (Unit::of(&roof), roof.flops.unwrap_or(f64::NAN));
    let (image, flops) = (Shape::new(batch, size, size, config.in_channels), config.flops(size, size));
    let model = Model::initial(&cpu, config, image, true, 0)?;
    println!("{preset}, {:?}, {} threads, {:.0} GFLOP/s at most", cpu.isa(), cpu.threads(), peak / 1e9);
    let settings = step::StepSettings { image, iterations, repeat: 5, seed: 0 };
    println!("{}", step::StepRow::head(unit));
    step::run(&cpu, &model, Some(flops), settings, |row| println!("{}", row.line(unit, &roof)))?;
    let gib = |bytes: usize| bytes as f64 / (1u64 << 30) as f64;
    println!("pool {:.2} GiB", gib(cpu.memory().peak));
    if let Some(bytes) = step::peak_resident() {
        println!("process {:.2} GiB", gib(bytes));
    }
    Ok(())
}
