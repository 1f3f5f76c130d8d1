//! `diem observe`: images in, observation file and preview out; and the readers of images.

mod cifar;
mod images;

use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::manifold::Manifold;
use diem::data::{Array, DType, Data, Measured, Observations, OperatorKind, Samples, npy};
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs `diem observe` on `images.npy` in the folder, with `extra` arguments: what it printed, or the one line of its error.
fn observe(dir: &Path, extra: &[&str]) -> std::result::Result<String, String> {
    let (input, out) = (dir.join("images.npy"), dir.join("obs.npz"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_diem"));
    command.args(["observe", "--input"]).arg(input).arg("--out").arg(out).args(extra);
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    match output.status.code() {
        Some(0) => Ok(text(output.stdout)),
        code => {
            let line = text(output.stderr);
            assert_eq!((code, line.lines().count()), (Some(2), 1), "{line}");
            Err(line)
        }
    }
}

/// A folder with `n` images of 9 x 7 x `c` bytes.
fn folder(n: usize, c: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = (0..n * 63 * c).map(|i| (i * i % 251) as u8).collect();
    npy::write(&dir.path().join("images.npy"), &Array::new(&[n, 9, 7, c], Data::U8(bytes))).unwrap();
    dir
}

fn observed(dir: &tempfile::TempDir, kind: OperatorKind) -> Observations {
    Observations::read(&dir.path().join("obs.npz"), kind).unwrap()
}

fn truth(dir: &tempfile::TempDir) -> Samples<f32> {
    images::read(&dir.path().join("images.npy")).unwrap()
}

#[track_caller]
fn assert_line<T, E: ToString>(result: std::result::Result<T, E>, parts: &[&str]) {
    let line = result.err().expect("an error").to_string();
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

#[test]
fn pixels_are_deleted_and_noise_added() {
    let dir = folder(40, 3);
    let said = observe(dir.path(), &["--delete", "0.75", "--noise", "0.01"]).unwrap();
    assert!(said.contains("obs.npz: 40 images 9 x 7 x 3") && said.contains("noise 0.01"), "{said}");
    let observations = observed(&dir, OperatorKind::Mask);
    assert_eq!((observations.noise(), observations.y().shape), (&[0.01][..], Shape::new(40, 9, 7, 3)));
    let Measured::Mask(mask) = observations.measured() else { unreachable!() };
    let kept = mask.data.iter().filter(|m| **m == 1).count() as f64;
    // 2,520 Bernoulli draws of probability ¼: standard deviation 0.0086
    assert!((kept / 2520.0 - 0.25).abs() < 5.0 * 0.0086, "{kept}");
    let truth = truth(&dir);
    let mut errors = Vec::new();
    for (i, (y, x)) in observations.y().data.iter().zip(&truth.data).enumerate() {
        match mask.data[i / 3] {
            0 => assert_eq!(*y, 0.0),
            _ => errors.push(f64::from(y - x) / 0.01),
        }
    }
    let n = errors.len() as f64;
    let (mean, square) = (errors.iter().sum::<f64>() / n, errors.iter().map(|e| e * e).sum::<f64>() / n);
    // mean and mean square of n standard normal numbers: standard deviations 1/√n and √(2/n)
    assert!(mean.abs() < 5.0 / n.sqrt() && (square - 1.0).abs() < 5.0 * (2.0 / n).sqrt(), "{mean} {square}");
}

#[test]
fn projections_are_of_unit_length_and_measured() {
    let dir = folder(5, 1);
    observe(dir.path(), &["--operator", "dense", "--rows", "11", "--noise", "1e-3", "--seed", "3"]).unwrap();
    let (observations, truth) = (observed(&dir, OperatorKind::Dense), truth(&dir));
    let Measured::Dense(a) = observations.measured() else { unreachable!() };
    assert_eq!((a.shape, observations.y().shape), (Shape::new(5, 1, 11, 63), Shape::rows(5, 11)));
    for sample in 0..5 {
        for (a, y) in a.row(sample).chunks(63).zip(observations.y().row(sample)) {
            let norm: f64 = a.iter().map(|a| f64::from(*a).powi(2)).sum();
            assert!((norm - 1.0).abs() < 1e-6, "{norm}: 63 squares, each rounded to float32");
            let ax: f64 = a.iter().zip(truth.row(sample)).map(|(a, x)| f64::from(a * x)).sum();
            assert!((f64::from(*y) - ax).abs() < 6e-3, "noise of 1e-3, within six standard deviations");
        }
    }
    let rows =
        |a: &Samples<f32>| a.data.chunks(63).map(|r| r.iter().map(|v| v.to_bits()).collect()).collect::<Vec<Vec<_>>>();
    let mut distinct = rows(a);
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!(distinct.len(), 55, "no direction twice");
}

/// The centre always, the others as often as the acceleration says; and A x + noise where the mask is 1.
#[test]
fn columns_of_k_space_are_kept_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let pixels = (0..400 * 2 * 320).map(|i| ((i * i % 1009) as f32 / 500.0).sin()).collect();
    npy::write(&dir.path().join("images.npy"), &Array::f32(&[400, 2, 320, 1], pixels)).unwrap();
    let said = observe(dir.path(), &["--operator", "fourier", "--acceleration", "6", "--noise", "0.01"]).unwrap();
    assert!(said.contains("400 images 2 x 320 x 1") && said.contains("% of the columns of k-space"), "{said}");
    let (observations, truth) = (observed(&dir, OperatorKind::Fourier), truth(&dir));
    let Measured::Fourier(mask) = observations.measured() else { unreachable!() };
    assert_eq!((mask.shape, observations.y().shape), (Shape::new(400, 1, 320, 1), Shape::new(400, 2, 320, 2)));
    let center = |column: usize| column.abs_diff(160) <= 10; // the paper's ±⌈60/R⌉
    let mut others = 0.0;
    for n in 0..400 {
        assert!((0..320).all(|column| !center(column) || mask.row(n)[column] == 1));
        others += (0..320).filter(|&column| !center(column) && mask.row(n)[column] == 1).count() as f64;
    }
    // 400 x 299 draws of the paper's probability 200/(320 R - 120): a standard deviation of 0.0009
    let share = others / (400.0 * 299.0);
    assert!((share - 200.0 / 1800.0).abs() < 5.0 * 0.0009, "{share}");
    let backend = Reference::new();
    let index = [3, 7];
    let measurement = observations.bind(&backend, &index, truth.shape.with_n(1), None).unwrap();
    let x = truth.gather(&index);
    let residual = measurement.residual(&backend, &backend.upload(x.shape, &x.data));
    let (mut squares, mut count) = (0.0, 0.0);
    for (i, r) in residual.iter().enumerate() {
        if mask.row(index[i / 1280])[i / 2 % 320] == 1 {
            (squares, count) = (squares + (r / 0.01).powi(2), count + 1.0);
        } else {
            assert_eq!(*r, 0.0);
        }
    }
    // some 400 squares of standard normal numbers: their mean has the standard deviation √(2/400) = 0.07
    assert!(count > 300.0 && (squares / count - 1.0f64).abs() < 0.35, "{squares} {count}");
    let image = image::open(dir.path().join("obs.png")).unwrap();
    assert!(image.width() > 8 * 320, "the preview shows every image, and what is known of it");
}

/// y = A x + noise, whatever A is: the residual of the truth has the noise's size.
#[test]
fn images_are_blurred_and_downsampled() {
    for (kind, options, extents, said) in [
        (OperatorKind::Blur, "--operator blur --kernel-size 5", Shape::new(3, 12, 8, 3), "blurred by 5 x 5 pixels"),
        (OperatorKind::Blur, "--operator blur --kernel motion --angle 20", Shape::new(3, 12, 8, 3), "--kernel-size"),
        (OperatorKind::Downsample, "--operator downsample", Shape::new(3, 3, 2, 3), "downsampled by 4"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let pixels = (0..3 * 12 * 8 * 3).map(|i| ((i * i % 1009) as f32 / 500.0).sin()).collect();
        npy::write(&dir.path().join("images.npy"), &Array::f32(&[3, 12, 8, 3], pixels)).unwrap();
        let words: Vec<&str> = options.split(' ').chain(["--noise", "0.01"]).collect();
        let output = observe(dir.path(), &words);
        if said.starts_with("--") {
            assert_line(output, &["--kernel-size: expected at most 8 pixels", "found 9"]);
            continue;
        }
        assert!(output.as_ref().is_ok_and(|line| line.contains(said)), "{output:?}");
        let (observations, truth) = (observed(&dir, kind), truth(&dir));
        assert_eq!(observations.y().shape, extents);
        let backend = Reference::new();
        let measurement = observations.bind(&backend, &[0, 1, 2], truth.shape, None).unwrap();
        let residual = measurement.residual(&backend, &backend.upload(truth.shape, &truth.data));
        let square = residual.iter().map(|r| (r / 0.01).powi(2)).sum::<f64>() / residual.len() as f64;
        // a mean of 54 or 864 squares
        assert!((square - 1.0).abs() < 5.0 * (2.0 / residual.len() as f64).sqrt(), "{options}: {square}");
        let x = observations.back_projection(0);
        assert!(x.len() == 12 * 8 * 3 && x.iter().all(|x| x.is_finite()));
    }
}

/// Runs `diem observe` with the words of `line` in the folder.
fn observe_line(dir: &Path, line: &str) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_diem")).current_dir(dir).arg("observe").args(line.split(' ')).output().unwrap()
}

#[test]
fn a_manifold_is_observed_by_projections() {
    let dir = tempfile::tempdir().unwrap();
    let line = "--manifold --dimension 4 --count 30 --rows 2 --noise 1e-2 --seed 5 --out obs.npz --truth truth.npy";
    let output = observe_line(dir.path(), line);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("30 vectors of 4 elements, 2 projections each"), "{said}");
    let truth = npy::read(&dir.path().join("truth.npy"), &[DType::F32]).unwrap();
    assert_eq!((truth.shape.as_slice(), truth.data), (&[30, 4][..], Data::F32(Manifold::new(4, 5).points(0, 30).data)));
    let observations = observed(&dir, OperatorKind::Dense);
    assert_eq!((observations.y().shape, observations.noise()), (Shape::rows(30, 2), &[0.01][..]));
    for (line, part) in [
        ("--out other.npz", "--input"),
        ("--manifold --input images.npy --out other.npz", "--manifold"),
        ("--input images.npy --dimension 3 --out other.npz", "--dimension"),
        ("--manifold --pad 2 --out other.npz", "--pad"),
    ] {
        let output = observe_line(dir.path(), line);
        let refusal = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && refusal.contains(part), "{line}: {refusal}");
    }
}

/// What happens to image k depends on seed and k only.
#[test]
fn an_image_is_observed_alike_in_any_company() {
    let kinds = [(OperatorKind::Mask, "mask"), (OperatorKind::Dense, "dense"), (OperatorKind::Fourier, "fourier")];
    for (kind, operator) in kinds {
        let dir = folder(6, 1);
        let read = |extra: &[&str]| {
            observe(dir.path(), &[&["--operator", operator, "--force"], extra].concat()).unwrap();
            let observations = observed(&dir, kind);
            let rows: Vec<Vec<u32>> = (0..observations.len())
                .map(|n| observations.y().row(n).iter().map(|v| v.to_bits()).collect())
                .collect();
            rows
        };
        let all = read(&[]);
        assert_eq!(all.len(), 6);
        assert_eq!(read(&["--count", "3"]), all[..3]);
        assert_eq!(read(&[]), all);
        assert!(read(&["--seed", "1"]).iter().zip(&all).all(|(a, b)| a != b));
    }
}

#[test]
fn nothing_is_written_over_without_force() {
    let dir = folder(2, 1);
    let truth = dir.path().join("truth.npy");
    let with_truth = ["--truth", truth.to_str().unwrap(), "--pad", "2"];
    observe(dir.path(), &with_truth).unwrap();
    let padded = npy::read(&truth, &[DType::F32]).unwrap();
    assert_eq!(padded.shape, [2, 13, 11, 1]);
    let before = fs::read(dir.path().join("obs.npz")).unwrap();
    assert_line(observe(dir.path(), &["--seed", "1"]), &["obs.npz: expected no such file yet (or --force)"]);
    fs::remove_file(dir.path().join("obs.npz")).unwrap();
    assert_line(observe(dir.path(), &[]), &["obs.png: expected no such file yet"]);
    fs::remove_file(dir.path().join("obs.png")).unwrap();
    assert_line(observe(dir.path(), &with_truth), &["truth.npy: expected no such file yet"]);
    observe(dir.path(), &[&with_truth[..], &["--force"]].concat()).unwrap();
    assert_eq!(fs::read(dir.path().join("obs.npz")).unwrap(), before, "the same seed, the same bytes");
    let preview = image::open(dir.path().join("obs.png")).unwrap().into_rgb8();
    assert_eq!(preview.dimensions(), (2 * (11 * 9 + 4) + 4, 2 * (13 * 9 + 4) + 4));
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let dir = folder(2, 1);
    let truth = dir.path().join("truth.npy");
    let with_truth = ["--truth", truth.to_str().unwrap()];
    let names = || {
        let mut names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    // the preview, which is written after the truth, cannot be; then the observations, written last
    for blocked in ["obs.png", "obs.npz"] {
        fs::create_dir(dir.path().join(blocked)).unwrap();
        let line = observe(dir.path(), &[&with_truth[..], &["--force"]].concat());
        assert_line(line, &[blocked, "cannot write: it is not a plain file"]);
        assert_eq!(names(), ["images.npy", blocked]);
        fs::remove_dir(dir.path().join(blocked)).unwrap();
    }
    observe(dir.path(), &with_truth).unwrap();
    assert_eq!(names(), ["images.npy", "obs.npz", "obs.png", "truth.npy"]);
}

#[test]
fn wrong_options_and_inputs_are_refused() {
    let dir = folder(2, 1);
    assert_line(observe(dir.path(), &["--rows", "3"]), &["--rows: expected --operator dense"]);
    assert_line(
        observe(dir.path(), &["--operator", "dense", "--rows", "99999999999"]),
        &["at most 8 GiB", "63 numbers"],
    );
    for bad in [["--noise", "0"], ["--noise", "nan"], ["--keep", "1.5"], ["--delete", "-1"], ["--operator", "wavelet"]]
    {
        assert_line(observe(dir.path(), &bad), &[bad[0]]);
    }
    let fourier = |extra: &[&str]| observe(dir.path(), &[&["--operator", "fourier"], extra].concat());
    assert_line(fourier(&["--acceleration", "0.5"]), &["--acceleration", "1 or more"]);
    assert_line(fourier(&["--acceleration", "nan"]), &["--acceleration", "1 or more"]);
    assert_line(fourier(&["--center", "3"]), &["--center: expected at most 1.2 columns, 7 / 6, in the center"]);
    assert_line(fourier(&["--keep", "0.5"]), &["--keep: expected --operator mask or dense, found --operator fourier"]);
    assert_line(fourier(&["--rows", "5"]), &["--rows: expected --operator dense"]);
    assert_line(fourier(&["--rows", "5", "--center", "1"]), &["--rows", "--center"]);
    assert_line(observe(dir.path(), &["--acceleration", "4"]), &["--acceleration: expected --operator fourier"]);
    assert_line(
        observe(dir.path(), &["--operator", "dense", "--center", "1"]),
        &["--center: expected --operator fourier"],
    );
    let operator = |kind: &'static str, extra: &[&str]| observe(dir.path(), &[&["--operator", kind], extra].concat());
    assert_line(operator("downsample", &["--factor", "2"]), &["--factor: expected a divisor of 9 and 7, found 2"]);
    assert_line(
        operator("blur", &["--factor", "2"]),
        &["--factor: expected --operator downsample, found --operator blur"],
    );
    assert_line(operator("mask", &["--kernel", "motion"]), &["--kernel: expected --operator blur"]);
    assert_line(operator("blur", &["--kernel", "box"]), &["--kernel", "gaussian"]);
    assert_line(operator("blur", &["--kernel-size", "8"]), &["--kernel-size: expected at most 7 pixels"]);
    assert_line(operator("blur", &["--kernel-size", "3", "--angle", "5"]), &["--angle: expected --kernel motion"]);
    let motion = ["--kernel", "motion", "--kernel-size", "3"];
    assert_line(
        operator("blur", &[&motion[..], &["--kernel-std", "5"]].concat()),
        &["--kernel-std: expected --kernel gaussian"],
    );
    assert_line(operator("blur", &[&motion[..], &["--angle", "nan"]].concat()), &["--angle"]);
    let colour = folder(2, 3);
    assert_line(observe(colour.path(), &["--operator", "fourier"]), &["one channel", "found 9 x 7 x 3"]);
    fs::remove_file(dir.path().join("images.npy")).unwrap();
    assert_line(observe(dir.path(), &[]), &["images.npy: cannot open: "]);
    fs::create_dir(dir.path().join("images.npy")).unwrap();
    assert_line(observe(dir.path(), &[]), &["images.npy: expected PNG or JPEG files, found none"]);
    assert!(!dir.path().join("obs.npz").exists());
}
