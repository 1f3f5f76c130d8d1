//! Damaged and hostile files: every reader ends in an array or an error, and asks for no more memory than the file's size justifies.

use diem::data::{DType, NpyReader, NpyWriter, Npz, Observations, OperatorKind, images, npy};
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::path::Path;

/// Counts what each thread has allocated, and its peak.
struct Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let live = LIVE.get() + bytes;
    LIVE.set(live);
    PEAK.set(PEAK.get().max(live));
}

// SAFETY: all memory is the system allocator's, with the layouts that it is given; counting allocates nothing, since the
// counters are constant-initialised and have no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's obligations are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Buffers, header, error text and the file system's paths: what a reader needs for any file.
const OVERHEAD: usize = 512 << 10;

/// The most that deflate expands.
const DEFLATE: usize = 1032;

/// Reads `bytes` as a file called `name`, and checks the peak of memory against `per_byte` times its size.
#[track_caller]
fn bounded<T>(name: &str, bytes: &[u8], per_byte: usize, read: impl Fn(&Path) -> diem::Result<T>) -> Option<T> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, bytes).unwrap();
    let before = LIVE.get();
    PEAK.set(before);
    let result = read(&path);
    let peak = (PEAK.get() - before) as usize;
    let limit = OVERHEAD + per_byte * bytes.len();
    assert!(peak <= limit, "{peak} bytes allocated for a file of {}, at most {limit} expected", bytes.len());
    result
        .inspect_err(|e| {
            let line = e.to_string();
            assert!(line.contains(name) && line.lines().count() == 1, "not one line with the file: {line:?}");
        })
        .ok()
}

fn fixture(name: &str) -> Vec<u8> {
    let path: std::path::PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "numpy", name].iter().collect();
    fs::read(path).unwrap()
}

/// `bytes` after damage: some overwritten, some cut off or repeated.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let n = bytes.len();
    let interesting = prop_oneof![Just(0), Just(1), Just(0x7f), Just(0x80), Just(0xff), any::<u8>()];
    let overwrite = prop::collection::vec((0..n, interesting), 0..6);
    let cut = prop_oneof![3 => Just(n), 1 => 0..n];
    (overwrite, cut, 0..n, 0..3usize).prop_map(move |(overwrite, cut, from, repeats)| {
        let mut bytes = bytes.clone();
        overwrite.into_iter().for_each(|(i, v)| bytes[i] = v);
        bytes.truncate(cut);
        let tail = bytes[from.min(cut)..].to_vec();
        (0..repeats).for_each(|_| bytes.extend(&tail));
        bytes
    })
}

/// A header whose text is Python-like rubbish: digits, brackets, quotes.
fn header() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "(",
        ")",
        "[",
        "'",
        "\"",
        ",",
        ":",
        " ",
        "'descr'",
        "'<f4'",
        "'fortran_order'",
        "True",
        "False",
        "'shape'",
        "1",
        "65536",
        "18446744073709551615",
        "4294967296",
        "L",
        "\u{e9}",
    ]);
    let text = prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes());
    let shape = prop::collection::vec(any::<u64>().prop_map(|d| d >> (d % 64)), 0..5).prop_map(|shape| {
        let shape: String = shape.iter().map(|d| format!("{d},")).collect();
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}").into_bytes()
    });
    (prop_oneof![text, shape], 1u8..4, prop::option::of(any::<u32>()), prop::collection::vec(any::<u8>(), 0..64))
        .prop_map(|(text, version, length, data)| {
            let length = length.unwrap_or(text.len() as u32).to_le_bytes();
            let length = if version == 1 { &length[..2] } else { &length };
            [b"\x93NUMPY", &[version, 0][..], length, &text, &data].concat()
        })
}

fn any_npy() -> impl Strategy<Value = Vec<u8>> {
    let names = ["f4.npy", "b1.npy", "scalar.npy", "version3.npy"];
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        header(),
        prop::sample::select(names.map(fixture).to_vec()).prop_flat_map(damaged),
    ]
}

fn any_npz() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..300),
        4 => prop::sample::select(["stored.npz", "deflated.npz"].map(fixture).to_vec()).prop_flat_map(damaged),
    ]
}

/// A small picture in the format of `extension`, damaged.
fn any_picture(extension: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let picture = image::RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 40, 9]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::from_extension(extension).unwrap()).unwrap();
    damaged(bytes.into_inner())
}

fn idx() -> Vec<u8> {
    [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 4][..], &[77; 60]].concat()
}

fn cifar() -> Vec<u8> {
    [vec![3; 3073], vec![7; 3073]].concat()
}

/// An archive with two batches.
fn tarred() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for name in ["batches/data_batch_1.bin", "batches/data_batch_2.bin"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(cifar().len() as u64);
        tar.append_data(&mut header, name, &cifar()[..]).unwrap();
    }
    tar.into_inner().unwrap()
}

fn gzipped(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gz, bytes).unwrap();
    gz.finish().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn npy(bytes in any_npy()) {
        // the elements, and as float32 those that are bytes in the file
        if let Some(array) = bounded("a.npy", &bytes, 5, |p| npy::read(p, DType::ALL)) {
            prop_assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
        }
        bounded("a.npy", &bytes, 5, |p| images::read(p, images::Selection::default()));
        if let Some(mut rows) = bounded("a.npy", &bytes, 1, NpyReader::open) {
            let mut x = vec![0.0; rows.row().min(1 << 20)];
            if rows.rows() > 0 && x.len() == rows.row() {
                rows.read(rows.rows() - 1, &mut x).unwrap();
            }
        }
        bounded("a.npy", &bytes, 1, |p| NpyWriter::resume(p, 2, &[3, 2], 1));
    }

    #[test]
    fn npz(bytes in any_npz()) {
        // members that deflate, and the directory: at most one entry, of less than 1 KiB, for each byte of the file
        bounded("a.npz", &bytes, DEFLATE + 1024, |p| {
            let mut npz = Npz::open(p)?;
            for name in npz.names() {
                if let Ok(array) = npz.read(&name, DType::ALL) {
                    assert_eq!(array.shape.iter().product::<usize>(), array.data.len());
                }
            }
            npz.read("y", &[DType::F32])
        });
        for kind in [OperatorKind::Mask, OperatorKind::Dense, OperatorKind::Fourier, OperatorKind::Blur, OperatorKind::Downsample] {
            bounded("a.npz", &bytes, 6 * DEFLATE, |p| Observations::read(p, kind)); // three arrays, bytes as float32
        }
    }

    #[test]
    fn pictures(png in any_picture("png"), jpeg in any_picture("jpeg")) {
        // 2^14 pixels for each byte, of 3 bytes in the file's form and 3 x 4 in ours, and the decoder's copy
        let per_byte = (1 << 14) * (3 + 3 + 12);
        bounded("a.png", &png, per_byte, |p| images::read(p, images::Selection::default()));
        bounded("a.jpg", &jpeg, per_byte, |p| images::read(p, images::Selection::default()));
        bounded("a.jpg", &png, per_byte, |p| images::read(p, images::Selection { count: None, size: Some(8) }));
    }

    #[test]
    fn idx_files(plain in damaged(idx()), packed in damaged(gzipped(&idx()))) {
        bounded("a-idx3-ubyte", &plain, 5, |p| images::read(p, images::Selection::default()));
        bounded("a-idx3-ubyte.gz", &packed, 5 * DEFLATE, |p| images::read(p, images::Selection::default()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cifar_files(
        plain in damaged(cifar()),
        tar in damaged(tarred()).prop_map(|bytes| gzipped(&bytes)),
        packed in damaged(gzipped(&tarred())),
    ) {
        // the bytes, as float32, and room to grow
        let read = |p: &Path| images::read(p, images::Selection::default());
        bounded("a.bin", &plain, 1 + 4 + 8, read);
        bounded("a.tar.gz", &tar, 7 * DEFLATE, read);
        bounded("a.tar.gz", &packed, 7 * DEFLATE, read);
    }
}

/// The directory of a zip file claims more entries, larger members, or a directory far away.
#[test]
fn hostile_zip_directories() {
    let good = fixture("stored.npz");
    let end = good.len() - 22; // the end record, without a comment
    let entry = good.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
    let patched = |at: usize, claim: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + claim.len()].copy_from_slice(claim);
        bytes
    };
    let huge = [0xfe, 0xff, 0xff, 0x7f];
    let read = |bytes: &[u8]| bounded("a.npz", bytes, DEFLATE + 1024, |p| Npz::open(p)?.read("y", DType::ALL));
    assert!(read(&good).is_some());
    read(&patched(end + 12, &huge)); // size of the directory, which nothing depends on
    for bytes in [
        patched(end + 8, &[0xff; 4]),                                  // entries
        patched(end + 16, &huge),                                      // where it begins
        patched(entry + 24, &huge),                                    // size of a member
        patched(entry + 20, &[huge, huge].concat()),                   // both sizes
        patched(entry + 20, &[&huge[..], &huge, &[0xff; 6]].concat()), // and lengths of name, extra field, comment
    ] {
        assert!(read(&bytes).is_none());
    }
    // An end record of zip64, as a 100-byte file that claims 2^56 entries.
    let claim = (1u64 << 56).to_le_bytes();
    let mut zip64 = [b"PK\x06\x06", &44u64.to_le_bytes()[..], &[45, 0, 45, 0], &[0; 8]].concat();
    zip64.extend([claim, claim, claim, claim].concat());
    zip64.extend([b"PK\x06\x07", &[0; 4][..], &0u64.to_le_bytes(), &[1, 0, 0, 0]].concat());
    zip64.extend([b"PK\x05\x06", &[0; 4][..], &[0xff; 12], &[0; 2]].concat());
    assert!(read(&zip64).is_none());
}

/// Directory and array header agree on a size that the file cannot hold, stored or deflated.
#[test]
fn members_that_claim_too_much() {
    const CLAIM: u32 = 1 << 30;
    let text = format!("{{'descr': '|u1', 'fortran_order': False, 'shape': ({CLAIM},), }}");
    let content = [b"\x93NUMPY\x01\x00", &(text.len() as u16).to_le_bytes()[..], text.as_bytes(), &[0; 8]].concat();
    let size = (10 + text.len() as u32 + CLAIM).to_le_bytes();
    for method in [zip::CompressionMethod::Stored, zip::CompressionMethod::Deflated] {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default().compression_method(method);
        zip.start_file("y.npy", options).unwrap();
        std::io::Write::write_all(&mut zip, &content).unwrap();
        let mut bytes = zip.finish().unwrap().into_inner();
        let entry = bytes.windows(4).position(|w| w == b"PK\x01\x02").unwrap();
        bytes[entry + 24..entry + 28].copy_from_slice(&size);
        if method == zip::CompressionMethod::Stored {
            bytes[entry + 20..entry + 24].copy_from_slice(&size);
        }
        let read = |bytes: &[u8]| bounded("a.npz", bytes, DEFLATE + 1024, |p| Npz::open(p)?.read("y", DType::ALL));
        assert!(read(&bytes).is_none());
    }
}
