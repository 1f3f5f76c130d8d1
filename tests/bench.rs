//! Timings: what they count, not how long anything takes.

use diem::backend::Shape;
use diem::backend::cpu::{Cpu, Options};
use diem::backend::timed::{Roofline, Stage, Timed};
use diem::check::bench::{self, BenchRow, Sizes, Unit, levels, step, training};
use diem::data::checkpoint::{Kind, Metadata};
use diem::diffusion::Model;
use diem::nn::UNetConfig;

/// A device whose shares are easy to see.
fn roof() -> Roofline {
    Roofline { flops: Some(1e12), by: "a test".to_owned(), copy: 1e11, cache: 1 << 20, stage: None }
}

fn cpu() -> Cpu {
    Cpu::new(Options::default()).unwrap()
}

fn rows(filter: &str, batch: usize) -> Vec<BenchRow> {
    let mut rows = Vec::new();
    bench::run(filter, Sizes::Cifar(batch), &cpu(), &roof(), |row| rows.push(row)).unwrap();
    rows
}

#[test]
fn ops_are_timed_with_their_work() {
    let rows = rows("conv2d 4x16x16x256 to 256", 4);
    let calls: Vec<_> = rows.iter().map(|row| row.call).collect();
    assert_eq!(calls, ["forward", "vjp", "vjp params"]);
    let (pixels, weights) = (4.0 * 256.0, 9.0 * 256.0 * 256.0);
    for row in &rows {
        assert_eq!(row.flops, 2.0 * weights * pixels);
        // x, y and the weights; their gradient is read and written
        let weights = if row.call == "vjp params" { 2.0 * weights } else { weights };
        assert_eq!(row.bytes, 4.0 * (2.0 * 256.0 * pixels + weights));
        assert!(row.seconds > 0.0);
        assert_eq!(row.of_peak, Some(row.flops / row.seconds / 1e12));
        assert_eq!(row.of_copy, row.bytes / row.seconds / 1e11);
        assert!(!row.in_cache);
    }
}

#[test]
fn training_ops_are_timed_at_every_batch() {
    let adam = &rows("adam", 1)[0];
    assert_eq!((adam.call, adam.bytes), ("step", 7.0 * 4.0 * f64::from(1 << 18))); // p, m, v twice, g
    for op in ["ema", "global_norm", "denoising_loss", "dropout"] {
        assert!(rows(op, 1).iter().all(|row| row.op == op && row.bytes > 0.0));
        assert!(!rows(op, 1).is_empty(), "{op}");
    }
}

#[test]
fn the_roofline_is_made_of_rates() {
    let roof = Cpu::new(Options { threads: 1, ..Options::default() }).unwrap().roofline().unwrap();
    // far below any machine: no bound on time holds on a busy one
    assert!(roof.flops.unwrap() > 1e6 && roof.flops.unwrap().is_finite());
    assert!(roof.copy > 1e6 && roof.copy.is_finite());
}

#[test]
fn targets_are_for_bf16_on_the_h100() {
    let row = |op: &str, call, stage| {
        let roof = Roofline { stage, ..roof() };
        BenchRow::new(op, String::new(), call, (1e9, 1e8), 1e-3, &roof).line(Unit::Tera)
    };
    assert!(row("conv2d", "forward", Some(Stage::Wgmma)).ends_with("70% of peak"));
    assert!(row("conv2d", "vjp", Some(Stage::Mma)).ends_with("45% of peak"));
    assert!(row("cg", "start and update", Some(Stage::Mma)).ends_with("85% of copy"));
    assert!(row("conv2d", "forward", None).ends_with("100%"));
    let target = |model, iterations, stage| step::target(model, iterations, &Roofline { stage, ..roof() });
    assert_eq!(target("cifar", 1, Some(Stage::Wgmma)), Some(50.0));
    assert_eq!(target("cifar", 1, Some(Stage::Mma)), Some(34.0));
    assert_eq!([target("small", 1, Some(Stage::Mma)), target("cifar", 1, None)], [None; 2]);
}

#[test]
fn levels_add_up_to_the_network() {
    let config = UNetConfig::preset("small").unwrap();
    let mut rows = Vec::new();
    levels::run(&cpu(), &config, Shape::new(2, 16, 16, 3), &roof(), |row| rows.push(row)).unwrap();
    let level = rows.iter().find(|row| row.size == "16 px, 32 ch" && row.call == "forward").unwrap();
    assert_eq!(level.op, "level 0");
    let blocks = rows.iter().find(|row| row.size == "8 px, 64 ch: 4 attn_block" && row.call == "vjp");
    assert_eq!(blocks.unwrap().op, "level 1");
    let flops = config.flops(16, 16);
    let norms = |call| rows.iter().filter(move |row| row.size.ends_with("channel_norm") && row.call == call);
    let norms = |call| norms(call).map(|row| row.flops).sum::<f64>(); // which the network's work leaves out
    let of = |call| rows.iter().find(|row| row.op == "all levels" && row.call == call).unwrap();
    // sums in another order
    let agree = |found: f64, expected: f64| assert!((found / expected - 1.0).abs() < 1e-12, "{found:e} {expected:e}");
    agree(of("forward").flops - norms("forward"), 2.0 * flops.forward);
    agree(of("vjp").flops - norms("vjp"), 2.0 * flops.vjp);
    let parts = rows.iter().filter(|row| row.size.contains(':') && row.call == "vjp");
    agree(parts.map(|row| row.seconds).sum(), of("vjp").seconds);
}

#[test]
fn a_step_is_one_forward_and_its_vjps_without_allocation() {
    let cpu = cpu();
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
    assert_eq!(forward.images_per_second, None);
    assert_eq!(step.images_per_second, Some(3.0 / (step.seconds * 257.0)));
    assert!(rows.iter().all(|row| 0.0 < row.fastest && row.fastest <= row.seconds));
}

/// Its standard output, and the JSON file that it writes.
#[cfg(feature = "emulator")]
fn program(options: &str) -> (String, serde_json::Value) {
    let folder = tempfile::tempdir().unwrap();
    let json = folder.path().join("bench.json");
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_diem"));
    let output = command.arg("bench").args(options.split('|')).arg("--json").arg(&json).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    (String::from_utf8(output.stdout).unwrap(), json)
}

#[test]
#[cfg(feature = "emulator")]
fn the_emulated_device_is_timed_and_the_file_agrees_with_the_table() {
    let (table, json) = program("--device|emulated|--precision|bf16|--ops|linear 2x4x4x32");
    assert!(table.contains("peak:   cuBLAS is not for emulated"), "{table}");
    assert_eq!(json["peak"]["flops_per_second"], serde_json::Value::Null);
    let copy = json["copy_bytes_per_second"].as_f64().unwrap();
    let rows = json["ops"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        let (call, seconds) = (row["call"].as_str().unwrap(), number("seconds"));
        let weights = if call == "vjp params" { 2.0 * 4.0 } else { 2.0 } * 32.0 * 96.0;
        assert_eq!(number("bytes"), 2.0 * 32.0 * (32.0 + 96.0) + weights, "bf16 but for the weights' gradient");
        assert_eq!(number("flops"), 2.0 * 32.0 * 32.0 * 96.0);
        assert!((number("of_copy") / (number("bytes") / seconds / copy) - 1.0).abs() < 1e-12);
        let start = format!("{:<15} {:<42} {call:<16} {:>9.3}", "linear", "2x4x4x32 to 96", 1e3 * seconds);
        let line = table.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{start}\n{table}"));
        let columns: Vec<_> = line[start.len()..].split_whitespace().collect();
        let share = format!("{:.0}%*", 100.0 * number("of_copy"));
        let rate = |name: &str| format!("{:.1}", number(name) / 1e9);
        assert_eq!(columns, [rate("flops_per_second"), "-".to_owned(), rate("bytes_per_second"), share]);
    }
}

#[test]
#[cfg(feature = "emulator")]
fn steps_of_the_emulated_device_are_replayed_without_allocation() {
    let (table, json) = program("--device|emulated|--model|small|--size|4|--repeat|1");
    let steps = json["steps"].as_array().unwrap();
    assert_eq!(steps.iter().map(|row| row["fresh"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 0]);
    let seconds = steps[1]["seconds"].as_f64().unwrap();
    assert_eq!(json["images_per_second"].as_f64().unwrap(), 1.0 / (seconds * 257.0));
    assert_eq!(json["seconds_per_image"].as_f64().unwrap(), seconds);
    let levels = json["levels"].as_array().unwrap();
    for (i, level) in ["4 px, 32 ch", "2 px, 64 ch"].iter().enumerate() {
        let of_level = |call: &str| {
            let op = format!("level {i}");
            levels.iter().find(|row| row["op"] == op.as_str() && row["size"] == *level && row["call"] == call).unwrap()
        };
        for call in ["forward", "vjp"] {
            let ms = format!("{:.3}", 1e3 * of_level(call)["seconds"].as_f64().unwrap());
            assert!(table.lines().any(|line| line.contains(level) && line.contains(&ms)), "{ms}\n{table}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn resident_memory_is_known() {
    let page_of_this_test = 1 << 20;
    assert!(step::peak_resident().unwrap() > page_of_this_test);
}

#[test]
fn a_training_step_counts_all_three_passes() {
    let (config, image) = (UNetConfig::preset("small").unwrap(), Shape::new(2, 16, 16, 3));
    let flops = config.flops(16, 16);
    assert!(flops.params > 0.8 * flops.forward && flops.params < flops.forward);
    let metadata = Metadata::new(Kind::UNet(config));
    let row = training::run(&cpu(), &metadata, image, Some(flops), (2, 0)).unwrap();
    assert_eq!((row.what.as_str(), row.batch, row.fresh), ("training step", 2, 0));
    assert_eq!(row.flops, Some(2.0 * (flops.forward + flops.vjp + flops.params)));
    assert!(row.seconds >= row.fastest && row.fastest > 0.0);
    let gaussian = Metadata { height: Some(16), width: Some(16), ..Metadata::new(Kind::Gaussian { channels: 3 }) };
    assert!(training::run(&cpu(), &gaussian, image, None, (1, 0)).is_err());
}
