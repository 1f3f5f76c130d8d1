//! CIFAR-10's binary version as images.

use super::assert_line;
use super::images::read;
use diem::backend::Shape;
use diem::data::images;
use flate2::write::GzEncoder;
use std::fs;
use std::path::Path;

/// Records of CIFAR-10: image k has the label k, and bytes that tell image, colour and pixel apart.
fn records(first: u8, count: u8) -> Vec<u8> {
    let record = |k: u8| {
        let planes = (0..3u8).flat_map(move |c| (0..1024u16).map(move |p| k * 40 + c * 10 + (p % 7) as u8));
        std::iter::once(k).chain(planes)
    };
    (first..first + count).flat_map(record).collect()
}

#[test]
fn cifars_batches_are_images_too() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("data_batch_2.bin"), records(2, 2)).unwrap();
    fs::write(file("data_batch_1.bin"), records(0, 2)).unwrap();
    fs::write(file("test_batch.bin"), records(4, 1)).unwrap();
    let value = |k: u8, c: u8, p: u16| images::from_byte(k * 40 + c * 10 + (p % 7) as u8);
    let expected = |range: std::ops::Range<u8>| -> Vec<f32> {
        range.flat_map(|k| (0..1024).flat_map(move |p| (0..3).map(move |c| value(k, c, p)))).collect()
    };
    // the batches to learn from, in order, and never those to test with
    let all = read(dir.path()).unwrap();
    assert_eq!((all.shape, &all.data), (Shape::new(4, 32, 32, 3), &expected(0..4)));
    assert_eq!(read(&file("test_batch.bin")).unwrap().data, expected(4..5));
    let first = |path: &Path, n: usize| images::read(path, images::Selection { count: Some(n), size: None });
    assert_eq!(first(dir.path(), 3).unwrap().data, expected(0..3));

    let archive = |members: &[(&str, Vec<u8>)]| {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::default()));
        for (name, bytes) in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &bytes[..]).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    };
    let gz = file("cifar-10-binary.tar.gz");
    let members = [
        ("data_batch_2.bin", records(2, 2)),
        ("batches.meta.txt", b"airplane".to_vec()),
        ("test_batch.bin", records(4, 1)),
        ("data_batch_1.bin", records(0, 2)),
    ];
    let whole = archive(&members);
    fs::write(&gz, &whole).unwrap();
    assert_eq!(read(&gz).unwrap(), all);
    assert_eq!(first(&gz, 3).unwrap().data, expected(0..3));

    fs::write(&gz, &whole[..whole.len() / 2]).unwrap();
    assert_line(read(&gz), &["cifar-10-binary.tar.gz: expected an intact .tar.gz"]);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [&flipped, &whole[..whole.len() - 8]] {
        fs::write(&gz, damaged).unwrap();
        assert_line(read(&gz), &["cifar-10-binary.tar.gz: expected an intact .tar.gz"]);
    }
    fs::write(&gz, archive(&[members[0].clone(), members[0].clone()])).unwrap();
    assert_line(read(&gz), &["expected every batch once, found data_batch_2.bin twice"]);
    fs::write(&gz, "no archive").unwrap();
    assert_line(read(&gz), &["cifar-10-binary.tar.gz: expected an intact .tar.gz"]);
    fs::write(&gz, archive(&[("data_batch_1", b"pickled".to_vec())])).unwrap();
    assert_line(read(&gz), &["expected data_batch_1.bin .. data_batch_5.bin (CIFAR-10's binary version)"]);
    fs::write(&gz, archive(&[("data_batch_1.bin", records(0, 2)[1..].to_vec())])).unwrap();
    assert_line(read(&gz), &["array data_batch_1.bin: expected CIFAR-10's records of 3073 bytes, found 6145 bytes"]);

    let path = file("data_batch_1.bin");
    for (bytes, part) in [
        (records(0, 1)[1..].to_vec(), "data_batch_1.bin: expected CIFAR-10's records of 3073 bytes, found 3072 bytes"),
        (Vec::new(), "data_batch_1.bin: expected CIFAR-10's records of 3073 bytes, found 0 bytes"),
        ([records(0, 1), vec![10; 3073]].concat(), "data_batch_1.bin: expected labels of 0 to 9, found 10 of image 1"),
    ] {
        fs::write(&path, bytes).unwrap();
        assert_line(read(&path), &[part]);
        assert_line(read(dir.path()), &[part]);
    }
}
