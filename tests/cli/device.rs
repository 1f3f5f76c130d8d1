//! The emulated GPU through the command line.

use super::*;

#[test]
fn the_emulated_device_samples_and_checks() {
    let home = Home::new();
    let line = format!("{PRIOR} --count 3");
    home.run(&format!("{line} --device cpu --out cpu"));
    home.run(&format!("{line} --device emulated --batch 2 --out two"));
    home.run(&format!("{line} --device emulated --batch 3 --out three"));
    let [cpu, two, three] = ["cpu", "two", "three"].map(|out| values(&home.read(&format!("{out}/samples.npy"))));
    assert_eq!(two, three);
    for (cpu, emulated) in cpu.iter().zip(&two) {
        // seven calls of the network in f32, each within 1e-4 of samples of order 1
        assert!((cpu - emulated).abs() < 1e-3, "{cpu} {emulated}");
    }
    home.run(&format!("{line} --device emulated --precision bf16 --out bf16"));
    assert!(home.run("check --device emulated --ops mask").contains(" 0 failed"));
}

#[test]
fn a_batch_that_does_not_fit_the_device_is_refused_with_what_would() {
    let home = Home::new();
    let line = format!("{PRIOR} --device emulated:64");
    let refused = home.refuse(&format!("{line} --count 4000 --batch 4000 --out r"));
    assert!(refused.contains("--batch: expected at most ") && refused.contains(" MiB, found 4000"), "{refused}");
    let fitting: usize = refused.split("at most ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    let refused = home.refuse(&format!("{line} --count 4000 --batch {} --out r", fitting + 1));
    assert!(refused.contains(&format!("at most {fitting}, ")), "{refused}");
    // the network has 2.6 MB
    for batch in ["--batch 1", ""] {
        let refused = home.refuse(&format!("{PRIOR} --device emulated:2 --count 1 {batch} --out one"));
        let parts = ["device: out of memory: ", " bytes wanted, ", " free; the model with one sample needs more than "];
        assert!(parts.iter().all(|part| refused.contains(part)), "{refused}");
    }
    assert!(home.refuse(&format!("{PRIOR} --device emulated:x --out r")).contains("--device"));
}

#[test]
fn what_the_kernels_do_not_hold_is_refused_when_it_is_loaded() {
    let home = Home::new();
    let write = |name: &str, config: UNetConfig| {
        let tensors: Vec<_> = config
            .layout()
            .specs()
            .iter()
            .map(|spec| (format!("net.{}", spec.name), spec.dims.clone(), vec![0.0; spec.len()]))
            .collect();
        let views = tensors.iter().map(|(name, dims, x)| (name.clone(), dims.clone(), x.as_slice()));
        Checkpoint::write(&home.path(name), &Metadata::new(Kind::UNet(config)), views, false).unwrap();
    };
    let small = |channels, heads| UNetConfig {
        in_channels: 1,
        out_channels: 1,
        channels: vec![channels],
        blocks: vec![1],
        heads: vec![heads],
        emb: 2,
        patch: 1,
    };
    write("wide.safetensors", small(258, 2));
    write("narrow.safetensors", small(258, 3));
    write("plain.safetensors", small(8, 0));
    let refusal = |model: &str, options: &str| {
        home.refuse(&format!("sample --model {model}.safetensors --device emulated --steps 1 --out r {options}"))
    };
    let wide = refusal("wide", "--size 2");
    for part in ["wide.safetensors: heads: expected at least 3 at 258 channels", "128 of a head", "found 2"] {
        assert!(wide.contains(part), "{wide}");
    }
    // 2^14 x 2^14 pixels of 8 channels are 2^31 elements
    let large = refusal("plain", "--size 16384");
    assert!(large.contains("plain.safetensors: image") && large.contains("found 16384 x 16384, 2147483648"), "{large}");
    // 2^10 pixels of 8 channels: 2^18 samples have 2^31
    let batch = refusal("plain", "--size 32 --count 300000 --batch 262144");
    assert!(batch.contains("--batch: expected at most 262143") && batch.contains("found 262144"), "{batch}");
    let line = "sample --steps 1 --count 1 --size 2 --model";
    home.run(&format!("{line} narrow.safetensors --device emulated --out n"));
    home.run(&format!("{line} wide.safetensors --device cpu --out w"));
}
