//! Timings: what they count, not how long anything takes.

use diem::backend::Shape;
use diem::backend::cpu::{Cpu, Options};
use diem::check::bench::{self, peak, step};
use diem::diffusion::Model;
use diem::nn::UNetConfig;

#[test]
fn ops_are_timed_with_their_work() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let mut rows = Vec::new();
    bench::run("conv2d 4x16x16x256 to 256", 0, &cpu, |row| rows.push(row)).unwrap();
    let calls: Vec<_> = rows.iter().map(|row| row.what).collect();
    assert_eq!(calls, ["forward", "vjp", "vjp params"]);
    for row in &rows {
        assert_eq!(row.flops, 2.0 * 9.0 * 256.0 * 256.0 * 4.0 * 16.0 * 16.0);
        assert!(row.seconds > 0.0 && row.gflops().is_finite() && row.gbytes() > 0.0);
    }
}

#[test]
fn the_peak_is_a_rate() {
    let flops = peak::flops(&Cpu::new(Options { threads: 1, ..Options::default() }).unwrap());
    assert!(flops.is_finite() && flops > 1e6); // far below any machine: no bound on time holds on a busy one
}

#[test]
fn a_step_is_one_forward_and_its_vjps_without_allocation() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let config = UNetConfig::preset("small").unwrap();
    let flops = config.flops(8, 8);
    let image = Shape::new(3, 8, 8, 3);
    let model = Model::initial(&cpu, config, image, true, 0).unwrap();
    let mut rows = Vec::new();
    let settings = step::StepSettings { image, iterations: 2, repeat: 3, seed: 0 };
    step::run(&cpu, &model, Some(flops), settings, |row| rows.push(row)).unwrap();
    let [forward, step] = &rows[..] else { panic!("two rows") };
    assert_eq!((forward.what.as_str(), step.what.as_str()), ("forward", "mmps(2) step"));
    assert_eq!(forward.flops, Some(3.0 * flops.forward));
    assert_eq!(step.flops, Some(3.0 * (flops.forward + 2.0 * flops.vjp)));
    assert_eq!((forward.fresh, step.fresh), (0, 0));
    assert!(rows.iter().all(|row| 0.0 < row.fastest && row.fastest <= row.seconds));
}

#[test]
#[cfg(target_os = "linux")]
fn resident_memory_is_known() {
    let page_of_this_test = 1 << 20;
    assert!(step::peak_resident().unwrap() > page_of_this_test);
}
