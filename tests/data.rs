//! Arrays in files: interchange with numpy (fixtures written by `fixtures/numpy/make.py`), round trips, and the error lines.

use diem::data::{Array, DType, Data, NpyReader, NpyWriter, Npz, atomic, npy, npz};
use std::fs;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "numpy", name].iter().collect()
}

fn ramp() -> Vec<f32> {
    (0..12).map(|i| i as f32 / 8.0 - 0.5).collect()
}

/// The error's line, which must name all of `parts`.
#[track_caller]
fn assert_line<T>(result: diem::Result<T>, parts: &[&str]) {
    let line = result.err().expect("an error").to_string();
    assert!(!line.contains('\n'), "{line}");
    for part in parts {
        assert!(line.contains(part), "{line:?} does not say {part:?}");
    }
}

#[test]
fn numpy_arrays_load() {
    let counts: Vec<f64> = (0..12).map(f64::from).collect();
    let read = |name| {
        let a = npy::read(&fixture(name), DType::ALL).unwrap();
        assert_eq!(a.shape, [2, 3, 2], "{name}");
        a.data
    };
    assert_eq!(read("f4.npy"), Data::F32(counts.iter().map(|x| *x as f32).collect()));
    assert_eq!(read("f8.npy"), Data::F64(counts.clone()));
    assert_eq!(read("u1.npy"), Data::U8(counts.iter().map(|x| *x as u8).collect()));
    assert_eq!(read("i8.npy"), Data::I64(counts.iter().map(|x| *x as i64).collect()));
    for version in ["version2.npy", "version3.npy"] {
        assert_eq!(read(version), Data::F32(ramp()));
    }
    let mask = Data::Bool((0..8).map(|i| i % 3 == 0).collect());
    assert_eq!(npy::read(&fixture("b1.npy"), DType::ALL).unwrap(), Array::new(&[2, 2, 2, 1], mask));
    assert_eq!(npy::read(&fixture("scalar.npy"), DType::ALL).unwrap(), Array::new(&[], Data::F64(vec![0.25])));
    assert_eq!(npy::read(&fixture("empty.npy"), DType::ALL).unwrap(), Array::f32(&[0, 3], vec![]));
}

#[test]
fn other_layouts_are_refused() {
    let read = |name| npy::read(&fixture(name), &[DType::F32, DType::F64]);
    assert_line(read("fortran.npy"), &["fortran.npy: expected C order", "found Fortran order"]);
    assert_line(read("big_endian.npy"), &["big_endian.npy: expected elements of type float32, float64, found >f4"]);
    assert_line(read("half.npy"), &["half.npy: ", "found <f2"]);
    assert_line(read("b1.npy"), &["b1.npy: ", "found bool"]);
    assert_line(read("structured.npy"), &["structured.npy: ", "not a structured type"]);
    assert_line(read("stored.npz"), &["stored.npz: expected a .npy array, found a file that does not begin with"]);
    assert_line(read("missing.npy"), &["missing.npy: cannot open: "]);
}

#[test]
fn numpy_archives_load() {
    for name in ["stored.npz", "deflated.npz"] {
        let mut npz = Npz::open(&fixture(name)).unwrap();
        assert_eq!(npz.names(), ["mask", "noise", "y"]);
        let mask: Vec<bool> = (0..8).map(|i| i % 3 == 0).collect();
        let y = mask.iter().flat_map(|m| [f32::from(u8::from(*m)); 3]).collect();
        assert_eq!(npz.read("mask", DType::ALL).unwrap(), Array::new(&[2, 2, 2, 1], Data::Bool(mask)));
        assert_eq!(npz.read("noise", DType::ALL).unwrap(), Array::new(&[], Data::F64(vec![1e-3])));
        assert_eq!(npz.read("y", DType::ALL).unwrap(), Array::f32(&[2, 2, 2, 3], y));
        assert_line(npz.read("A", DType::ALL), &[name, "expected an array A, found arrays mask, noise, y"]);
        assert_line(npz.read("noise", &[DType::F32]), &[name, "array noise: ", "float32", "found float64"]);
    }
    assert_line(Npz::open(&fixture("f4.npy")), &["f4.npy: expected a .npz (zip) file"]);
}

#[test]
fn arrays_come_back_as_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.npy");
    let arrays = [
        Array::f32(&[2, 3, 2], ramp()),
        Array::new(&[], Data::F64(vec![std::f64::consts::PI])),
        Array::new(&[20_000], Data::I64((0..20_000).map(|i| i * i - 77).collect())),
        Array::new(&[0, 4], Data::U8(vec![])),
        Array::new(&[3], Data::Bool(vec![true, false, true])),
    ];
    for array in &arrays {
        npy::write(&path, array).unwrap();
        assert_eq!(&npy::read(&path, DType::ALL).unwrap(), array);
    }
    let names = ["a", "b", "c", "d", "e"];
    let write =
        |path: &Path| npz::write(path, |w| names.iter().zip(&arrays).try_for_each(|(n, a)| w.add(n, a))).unwrap();
    let (first, second) = (dir.path().join("1.npz"), dir.path().join("2.npz"));
    write(&first);
    write(&second);
    let mut npz = Npz::open(&first).unwrap();
    for (name, array) in names.iter().zip(&arrays) {
        assert_eq!(&npz.read(name, DType::ALL).unwrap(), array);
    }
    assert_eq!(fs::read(&first).unwrap(), fs::read(&second).unwrap(), "the bytes depend on the arrays only");
}

/// numpy's own bytes, so that what it reads of its files it also reads of ours.
#[test]
fn files_are_numpys_bytes() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["f4.npy", "f8.npy", "u1.npy", "i8.npy", "b1.npy", "scalar.npy", "empty.npy"] {
        let path = dir.path().join(name);
        npy::write(&path, &npy::read(&fixture(name), DType::ALL).unwrap()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), fs::read(fixture(name)).unwrap(), "{name}");
    }
}

#[test]
fn damaged_headers_and_sizes_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.npy");
    let with = |text: &str, data: usize| {
        let length = (text.len() as u16).to_le_bytes();
        fs::write(&path, [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), &vec![0; data]].concat()).unwrap();
        npy::read(&path, &[DType::F32])
    };
    let shape = |s: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {s}, }}\n");
    assert_eq!(with(&shape("(2L, 1L)"), 8).unwrap().shape, [2, 1]);
    assert_eq!(with("{\"shape\":(2,),\"descr\":\"<f4\",\"fortran_order\":False}", 8).unwrap().shape, [2]);
    for (text, data, parts) in [
        (shape("(2, 3)"), 20, &["expected 24 bytes of float32 for shape (2, 3), found 20"][..]),
        (shape("(2, 3)"), 28, &["expected 24 bytes", "found 28"]),
        (shape("(4294967296, 4294967296)"), 0, &["a shape that fits in memory", "(4294967296, 4294967296)"]),
        (shape("(0, 18446744073709551615, 18446744073709551615)"), 0, &["a shape that fits in memory"]),
        (shape("(18446744073709551616,)"), 0, &["extents that are whole numbers"]),
        (shape("(-1,)"), 0, &["extents that are whole numbers"]),
        (shape(&format!("({})", "1,".repeat(65))), 4, &["at most 64 extents"]),
        (shape("3"), 12, &["a tuple for shape"]),
        ("{'descr': '<f4', 'shape': (1,)}".to_owned(), 4, &["the keys descr, fortran_order and shape"]),
        ("{'descr': '<f4', 'descr': '<f4'}".to_owned(), 4, &["each key once"]),
        ("{'x': 1}".to_owned(), 4, &["no other"]),
        ("{'descr".to_owned(), 4, &["a closing quote"]),
        ("((((((((((".to_owned(), 4, &["a dictionary"]),
    ] {
        assert_line(with(&text, data), parts);
        assert_line(with(&text, data), &["bad.npy: "]);
    }
    fs::write(&path, b"\x93NUMPY\x02\x00\xff\xff\xff\x7f").unwrap();
    assert_line(npy::read(&path, &[DType::F32]), &["bad.npy: expected a header of at most", "found 2147483647"]);
    fs::write(&path, b"\x93NUMPY\x04\x00\x10\x00\x00\x00").unwrap();
    assert_line(npy::read(&path, &[DType::F32]), &["bad.npy: expected .npy version 1, 2 or 3, found version 4"]);
    fs::write(&path, b"").unwrap();
    assert_line(npy::read(&path, &[DType::F32]), &["bad.npy: expected a .npy array, found 0 bytes"]);
}

#[test]
fn a_compressed_bomb_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.npz");
    let zeros = Array::new(&[1 << 24], Data::U8(vec![0; 1 << 24]));
    npz::write(&path, |w| w.add("y", &zeros)).unwrap();
    assert!(fs::metadata(&path).unwrap().len() < 1 << 18);
    assert_line(
        Npz::open(&path).unwrap().limit(1 << 20).read("y", &[DType::U8]),
        &["bomb.npz: array y: ", "1048576 bytes"],
    );
    assert_eq!(Npz::open(&path).unwrap().read("y", &[DType::U8]).unwrap(), zeros);
}

#[test]
fn a_flipped_bit_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flipped.npz");
    let mut bytes = fs::read(fixture("stored.npz")).unwrap();
    let at = bytes.windows(4).position(|w| w == 1f32.to_le_bytes()).unwrap();
    bytes[at] ^= 1;
    fs::write(&path, &bytes).unwrap();
    assert_line(Npz::open(&path).unwrap().read("y", &[DType::F32]), &["flipped.npz: array y: ", "Invalid checksum"]);
}

#[test]
fn rows_are_appended_read_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, path) = (dir.path().join("whole.npy"), dir.path().join("rows.npy"));
    npy::write(&whole, &Array::f32(&[4, 3, 1], ramp())).unwrap();
    let x = ramp();

    let mut w = NpyWriter::create(&path, 4, &[3, 1]).unwrap();
    w.append(&x[..6]).unwrap();
    assert_eq!(w.sync().unwrap(), 2);
    w.append(&x[..3]).unwrap(); // not synced: taken back by the resumed run
    drop(w);
    assert_line(NpyReader::open(&path), &["rows.npy: expected 48 bytes of float32 for shape (4, 3, 1), found 36"]);
    assert_line(NpyWriter::resume(&path, 4, &[3, 2], 2), &["rows.npy: expected shape (4, 3, 2), found (4, 3, 1)"]);
    assert_line(NpyWriter::resume(&path, 4, &[3, 1], 4), &["rows.npy: expected 4 rows of 4, found 3 rows"]);

    let mut w = NpyWriter::resume(&path, 4, &[3, 1], 2).unwrap();
    w.append(&x[6..9]).unwrap();
    w.append(&x[9..]).unwrap();
    w.finish().unwrap();
    assert_eq!(fs::read(&path).unwrap(), fs::read(&whole).unwrap(), "bit-identical after an interruption");

    let mut r = NpyReader::open(&path).unwrap();
    assert_eq!((r.shape(), r.rows(), r.row()), (&[4, 3, 1][..], 4, 3));
    let mut two = [f32::NAN; 6];
    r.read(1, &mut two).unwrap();
    assert_eq!(two, x[3..9]);
    assert_line(NpyReader::open(&fixture("scalar.npy")), &["scalar.npy: expected elements of type float32"]);
}

#[test]
fn writes_are_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kept.bin");
    atomic::write_bytes(&path, b"old").unwrap();
    let failed = atomic::write(&path, |w| {
        std::io::Write::write_all(w, b"half of the new")?;
        Err(std::io::Error::from(std::io::ErrorKind::StorageFull))
    });
    assert_line(failed, &["kept.bin: cannot write: "]);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "no temporary file is left");
    assert_line(atomic::write_bytes(&dir.path().join("no/such/folder"), b""), &["folder: cannot write: "]);
    assert_line(atomic::write_bytes(dir.path(), b""), &["cannot write: it is not a plain file"]);
}

/// A full device fails the write, and the error names the file.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    assert_line(
        atomic::write_bytes(Path::new("/dev/full"), b"x"),
        &["/dev/full: cannot write: it is not a plain file"],
    );
    assert_line(NpyWriter::create(Path::new("/dev/full"), 1, &[1]), &["/dev/full: cannot write: No space left"]);
}
