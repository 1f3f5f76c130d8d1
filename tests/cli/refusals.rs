//! What the program refuses: in one line, with nothing lost.

use super::*;

#[test]
fn folders_of_others_are_refused_untouched() {
    let home = Home::new();
    home.run(&format!("{PRIOR} --count 2 --out run"));
    fs::create_dir(home.path("mine")).unwrap();
    fs::write(home.path("mine/samples.npy"), "precious").unwrap();
    let before = home.everything(".");
    for (line, part) in [
        (format!("{PRIOR} --count 3 --out run"), "shape"),
        (format!("{PRIOR} --count 2 --seed 5 --out run"), "seed 5"),
        (PRIOR.replace("steps 6", "steps 7") + " --count 2 --out run", "sampler"),
        (format!("{PRIOR} --count 2 --out mine"), "samples.npy"),
        (format!("{PRIOR} --count 2 --out mine/samples.npy"), "samples.npy"),
        ("demo --out mine".to_owned(), "earlier demo"),
    ] {
        let refusal = home.refuse(&line);
        assert!(refusal.contains(part), "{line}: {refusal}");
    }
    assert_eq!(home.everything("."), before);
}

/// A limit on the size of files stands for a full disk: writing fails at the same places.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_ends_in_one_line_and_the_run_continues_later() {
    let home = Home::new();
    let line = format!("{PRIOR} --count 60 --batch 4");
    home.run(&format!("{line} --out whole"));
    let program = env!("CARGO_BIN_EXE_diem");
    let script = format!("trap '' XFSZ; ulimit -f 8; exec {program} {} --out cut", line.replace("MODEL", MODEL));
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(home.0.path()).output().unwrap();
    let (refusal, code) = home::error(&line, &output);
    assert_eq!(code, 2, "{refusal}");
    assert!(refusal.contains("samples.partial.npy: cannot write"), "{refusal}");
    assert!(home.run(&format!("{line} --out cut")).contains("continuing"));
    assert_eq!(home.read("cut/samples.npy"), home.read("whole/samples.npy"));
}

#[test]
fn wrong_arguments_and_files_are_refused_in_one_line() {
    let home = Home::new();
    home.observe();
    fs::write(home.path("torn.safetensors"), &fs::read(MODEL).unwrap()[..5000]).unwrap();
    fs::write(home.path("torn.npz"), &home.read("y.npz")[..300]).unwrap();
    fs::write(home.path("torn.npy"), &home.read("x.npy")[..300]).unwrap();
    let mut x = home.read("x.npy");
    let end = x.len();
    x[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(home.path("nan.npy"), x).unwrap();
    let before = home.everything(".");
    let posterior = "--observations y.npz --operator mask";
    let mut faults = Vec::new();
    for (line, parts) in [
        ("", ["command", "none"]),
        ("smaple", ["command", "smaple"]),
        ("sample --model MODEL --out r --sampler euler", ["--sampler", "2m-sde"]),
        ("sample --model MODEL --out r --steps 0", ["--steps", "'0'"]),
        ("sample --model MODEL --out r --steps 70000", ["--steps", "65535"]),
        ("sample --model MODEL --out r --stpes 3", ["--stpes", "--steps"]),
        ("sample --model MODEL --out r --eta 0.5", ["--eta", "ddim"]),
        ("sample --model MODEL --out r --sampler ddim --eta 2", ["--eta", "'2'"]),
        ("sample --model MODEL --out r --sampler ddim --delta 0.1", ["--delta", "pc"]),
        ("sample --model MODEL --out r --draws 2", ["--draws", "--observations"]),
        ("sample --model MODEL --out r --solver gmres", ["--solver", "--observations"]),
        ("sample --model MODEL --out r --batch 0", ["--batch", "auto"]),
        ("sample --model MODEL --out r --device gpu", ["--device", "cuda:INDEX"]),
        ("sample --model MODEL --out r --device cuda:99", ["--device", "cuda"]),
        ("sample --model MODEL --out r --device cpu --precision bf16", ["--precision", "bf16"]),
        ("sample --model MODEL --out r --size 9", ["fashion-small.safetensors", "multiples of 2"]),
        ("sample --model MODEL --out r --size 0", ["--size", "'0'"]),
        ("sample --model MODEL", ["--out", "found no such option"]),
        ("sample --model none.safetensors --out r", ["none.safetensors", "cannot"]),
        ("sample --model torn.safetensors --out r", ["torn.safetensors", "truncated"]),
        ("sample --model y.npz --out r", ["y.npz", "safetensors"]),
        ("sample --model MODEL --out r --observations y.npz", ["--observations", "--operator"]),
        ("sample --model MODEL --out r --observations torn.npz --operator mask", ["torn.npz", "expected"]),
        ("sample --model MODEL --out r --observations y.npz --operator dense", ["y.npz", "A"]),
        ("sample --model MODEL --out r --observations y.npz --operator wavelet", ["--operator", "mask"]),
        ("sample --model MODEL --out r POSTERIOR --count 3", ["--count", "--observations"]),
        ("sample --model MODEL --out r POSTERIOR --size 8", ["--size", "32x32"]),
        ("sample --model MODEL --out r POSTERIOR --zeta 2", ["--zeta", "dps"]),
        ("sample --model MODEL --out r POSTERIOR --rtol nan", ["--rtol", "'nan'"]),
        ("sample --model MODEL --out r POSTERIOR --iterations 0", ["--iterations", "'0'"]),
        (
            "denoise --model MODEL --input x.npy --sigma 1 --vjp x.npy --vjp-out g POSTERIOR --out r",
            ["--vjp", "--observations"],
        ),
        ("denoise --model MODEL --input x.npy --sigma 1 --vjp x.npy --out r", ["--vjp-out", "expected"]),
        ("denoise --model MODEL --input x.npy --sigma 1 2 3 --out r", ["--sigma", "3"]),
        ("denoise --model MODEL --input x.npy --sigma 0 --out r", ["--sigma", "'0'"]),
        ("denoise --model MODEL --input x.npy --sigma -1 --out r", ["--sigma", "-1"]),
        ("denoise --model MODEL --input torn.npy --sigma 1 --out r", ["torn.npy", "truncated"]),
        ("denoise --model MODEL --input nan.npy --sigma 1 --out r", ["nan.npy, sample 1", "non-finite"]),
        ("denoise --model MODEL --input x.npy --sigma 1 --out none/r.npy", ["none/r.npy", "cannot write"]),
        ("demo --images 33", ["--images", "32"]),
        ("sample --model MODEL --out r POSTERIOR --method dps --sampler pc", ["--method dps", "--sampler pc"]),
        (
            "denoise --model MODEL --input x.npy --sigma 1 --vjp x.npy --out r --vjp-out r",
            ["--vjp-out", "another file"],
        ),
        (
            "denoise --model MODEL --input x.npy --sigma 10 0.1 POSTERIOR --prior-above 1 --out r",
            ["--sigma", "--prior-above 1"],
        ),
        ("calibrate --model MODEL --count 14", ["--count", "15"]), // one bin: no test could fail
        ("calibrate --model MODEL --draws 1", ["--draws", "from 2"]),
        ("calibrate --model MODEL --truth x.npy", ["x.npy", "at least 15"]),
        ("calibrate --model MODEL --out c.png", ["--out", ".json"]),
        ("observe --input x.npy --out o.npz --size 8", ["x.npy", "--size"]),
        ("observe --input x.npy --out o.npz --pad 5000", ["--pad", "4096"]),
        ("observe --input x.npy --out o.npz --truth o.png", ["--truth", "another file"]),
    ] {
        let line = line.replace("POSTERIOR", posterior);
        let refusal = home.refuse(&line);
        if !parts.iter().all(|part| refusal.contains(part)) {
            faults.push(format!("diem {line}: {refusal}"));
        }
        assert!(home.everything(".") == before, "diem {line} wrote something");
    }
    assert!(faults.is_empty(), "{}", faults.join(""));
}
