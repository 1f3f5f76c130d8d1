//! No file can make the checkpoint reader panic, hang, or allocate more than a small multiple of its size.

use diem::data::Checkpoint;
use diem::data::checkpoint::{Kind, Metadata};
use diem::nn::MlpConfig;
use proptest::prelude::*;
use std::sync::LazyLock;

/// A valid file of a few hundred bytes.
static VALID: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let metadata = Metadata::new(Kind::Mlp(MlpConfig { features: 2, hidden: vec![3], emb: 2 }));
    let layout = metadata.layout();
    let values: Vec<Vec<f32>> = layout.ids().map(|id| diem::nn::initial(&layout, id, 1)).collect();
    let tensors = layout.specs().iter().zip(&values);
    let tensors = tensors.map(|(spec, values)| (format!("net.{}", spec.name), spec.dims.clone(), values.as_slice()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.safetensors");
    Checkpoint::write(&path, &metadata, tensors, false).unwrap();
    Checkpoint::open(&path).unwrap();
    std::fs::read(&path).unwrap()
});

/// Reads a file of these bytes: an error is one line.
fn read(bytes: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    match Checkpoint::open(file.path()) {
        Ok(_) => true,
        Err(e) => {
            let line = e.to_string();
            assert!(!line.contains('\n') && line.len() < 2000, "{line}");
            false
        }
    }
}

/// The file with a header of `json`, padded as the format wants, and `data`.
fn file(json: &str, data: &[u8]) -> Vec<u8> {
    let json = format!("{json:<width$}", width = json.len().next_multiple_of(8));
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

/// (header, data) of the valid file.
fn parts() -> (&'static str, &'static [u8]) {
    let len = u64::from_le_bytes(VALID[..8].try_into().unwrap()) as usize;
    (std::str::from_utf8(&VALID[8..8 + len]).unwrap(), &VALID[8 + len..])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!read(&bytes));
    }

    #[test]
    fn random_headers(json in "[\\[\\]{}:\", a-z0-9_.\\-]{0,120}", data in prop::collection::vec(any::<u8>(), 0..16)) {
        prop_assert!(!read(&file(&json, &data)));
    }

    #[test]
    fn truncations(len in 0..VALID.len()) {
        prop_assert!(!read(&VALID[..len]));
    }

    #[test]
    fn changed_bytes(changes in prop::collection::vec((0..VALID.len(), any::<u8>()), 1..6)) {
        let mut bytes = VALID.clone();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        read(&bytes);
    }

    #[test]
    fn changed_numbers(which in 0usize..40, number in prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| format!("{n:e}")),
        (0u64..70_000).prop_map(|n| n.to_string()),
    ]) {
        let (header, data) = parts();
        let digits: Vec<(usize, &str)> = header
            .match_indices(|c: char| c.is_ascii_digit())
            .filter(|&(at, _)| !header.as_bytes()[at - 1].is_ascii_digit())
            .collect();
        let (at, _) = digits[which % digits.len()];
        let end = at + header[at..].find(|c: char| !c.is_ascii_digit()).unwrap();
        read(&file(&format!("{}{number}{}", &header[..at], &header[end..]), data));
    }
}
