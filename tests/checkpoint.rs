//! Checkpoints: what is written is read again, and every damage ends in one line that says what is wrong.

use diem::Error;
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::Checkpoint;
use diem::data::checkpoint::{Kind, Metadata};
use diem::diffusion::Model;
use diem::nn::{MlpConfig, UNetConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn unet() -> Metadata {
    let (channels, blocks, heads) = (vec![2, 4], vec![1, 1], vec![0, 2]);
    let config = UNetConfig { in_channels: 3, out_channels: 3, channels, blocks, heads, emb: 4, patch: 2 };
    Metadata::new(Kind::UNet(config))
}

fn tensors(metadata: &Metadata) -> Tensors {
    let layout = metadata.layout();
    let tensor = |id| {
        let spec = &layout[id];
        (format!("net.{}", spec.name), (spec.dims.clone(), diem::nn::initial(&layout, id, 1)))
    };
    layout.ids().map(tensor).collect()
}

fn write(folder: &TempDir, metadata: &Metadata, tensors: &Tensors) -> PathBuf {
    let path = folder.path().join("model.safetensors");
    let tensors = tensors.iter().map(|(name, (dims, values))| (name.clone(), dims.clone(), values.as_slice()));
    Checkpoint::write(&path, metadata, tensors, true).unwrap();
    path
}

/// The one line that opening the file ends in; it begins with the file and has all of `parts`.
fn refused(path: &Path, parts: &[&str]) {
    let error = Checkpoint::open(path).err().expect("it is refused");
    let line = error.to_string();
    assert!(line.starts_with(&path.display().to_string()) || matches!(error, Error::NonFinite { .. }), "{line}");
    assert!(parts.iter().all(|part| line.contains(part)) && !line.contains('\n'), "{line}: not {parts:?}");
}

/// As [`refused`], of the U-Net's file after a change to its tensors.
fn refused_after(change: impl FnOnce(&mut Tensors), parts: &[&str]) {
    let folder = TempDir::new().unwrap();
    let mut tensors = tensors(&unet());
    change(&mut tensors);
    refused(&write(&folder, &unet(), &tensors), parts);
}

#[test]
fn a_written_checkpoint_is_read_again() {
    let folder = TempDir::new().unwrap();
    let mut metadata = unet();
    (metadata.height, metadata.width, metadata.sigma_max) = (Some(8), Some(4), 10.0);
    let mut tensors = tensors(&metadata);
    tensors.insert("mean".into(), (vec![96], vec![0.5; 96]));
    let path = write(&folder, &metadata, &tensors);
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.metadata(), &metadata);
    assert_eq!(checkpoint.mean(), Some(vec![0.5; 96]));
    assert_eq!(checkpoint.covariance(), None);
    let backend = Reference::new();
    for spec in metadata.layout().specs() {
        let (_, values) = &tensors[&format!("net.{}", spec.name)];
        let found = backend.to_vec(&checkpoint.parameter(&backend, spec)).unwrap();
        assert!(found.iter().zip(values).all(|(a, b)| *a == f64::from(*b)), "{}", spec.name);
    }
    let model = Model::load(&backend, &checkpoint, Shape::new(1, 8, 4, 3), true).unwrap();
    assert_eq!(model.mean().map(<[f32]>::len), Some(96));
}

#[test]
fn a_file_is_replaced_only_when_told() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &unet(), &tensors(&unet()));
    let before = std::fs::read(&path).unwrap();
    let error = Checkpoint::write(&path, &unet(), [], false).unwrap_err();
    assert!(error.to_string().contains("model.safetensors"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_gaussian_is_read() {
    let folder = TempDir::new().unwrap();
    let mut metadata = Metadata::new(Kind::Gaussian { channels: 1 });
    (metadata.height, metadata.width) = (Some(2), Some(3));
    let mut tensors = Tensors::from([
        ("mean".into(), (vec![6], vec![0.5; 6])),
        ("diag".into(), (vec![6], vec![1.0; 6])),
        ("factor".into(), (vec![6, 2], vec![0.1; 12])),
    ]);
    let backend = Reference::new();
    let load = |tensors: &Tensors| {
        let checkpoint = Checkpoint::open(&write(&folder, &metadata, tensors))?;
        Model::load(&backend, &checkpoint, Shape::new(1, 2, 3, 1), true)
    };
    let model = load(&tensors).unwrap();
    assert_eq!(model.prior().map(|prior| prior.mean().len()), Some(6));

    tensors.insert("diag".into(), (vec![6], vec![-1.0; 6]));
    let line = load(&tensors).err().expect("a negative variance").to_string();
    assert!(line.contains("tensor diag: expected values of 0 or above, found -1"), "{line}");
    tensors.insert("diag".into(), (vec![6], vec![1.0; 6]));
    tensors.insert("factor".into(), (vec![5, 2], vec![0.1; 10]));
    let line = load(&tensors).err().expect("a wrong factor").to_string();
    assert!(line.contains("tensor factor: expected shape (6, 2), found (5, 2)"), "{line}");
    tensors.remove("factor");
    let line = load(&tensors).err().expect("a missing factor").to_string();
    assert!(line.contains("tensor factor: expected a tensor, found none"), "{line}");
}

#[test]
fn other_files_are_refused() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none.safetensors");
    refused(&path, &["cannot read"]);
    refused(folder.path(), &["not a file"]);
    for content in [&b""[..], b"short", &[0xff; 100], b"\x02\0\0\0\0\0\0\0{]", b"\x02\0\0\0\0\0\0\0{}"] {
        std::fs::write(&path, content).unwrap();
        refused(&path, &["expected"]);
    }
    let whole = std::fs::read(write(&folder, &unet(), &tensors(&unet()))).unwrap();
    for len in [7, 8, 100, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..len]).unwrap();
        refused(&path, &["truncated"]);
    }
}

#[test]
fn wrong_tensors_are_named() {
    refused_after(
        |t| drop(t.remove("net.down.1.sample.bias")),
        &["tensor net.down.1.sample.bias: expected a tensor, found none"],
    );
    refused_after(
        |t| {
            let tensor = t.remove("net.stem.weight").unwrap();
            t.insert("net.stm.weight".into(), tensor);
            t.insert("ema".into(), (vec![1], vec![0.0]));
        },
        &["tensor net.stem.weight: expected a tensor, found none (perhaps misnamed net.stm.weight)"],
    );
    refused_after(
        |t| drop(t.insert("optimizer.step".into(), (vec![1], vec![3.0]))),
        &["tensor optimizer.step: expected no such tensor"],
    );
    refused_after(
        |t| t.get_mut("net.head.weight").unwrap().0 = vec![2, 12, 1, 1],
        &["tensor net.head.weight: expected shape (12, 2, 1, 1), found (2, 12, 1, 1)"],
    );
    refused_after(
        |t| t.get_mut("net.up.1.attn.0.q.bias").unwrap().1[3] = f32::NAN,
        &["non-finite value in", "model.safetensors: tensor net.up.1.attn.0.q.bias, element 3"],
    );
    refused_after(|t| drop(t.insert("mean".into(), (vec![5], vec![0.0; 5]))), &["tensor mean", "multiple of 3", "(5)"]);
    refused_after(|t| drop(t.insert("diag".into(), (vec![6], vec![0.0; 6]))), &["tensor mean", "found none"]);
}

#[test]
fn another_type_is_named() {
    use safetensors::Dtype;
    use safetensors::tensor::TensorView;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("half.safetensors");
    let metadata = Metadata::new(Kind::Mlp(MlpConfig { features: 2, hidden: vec![3], emb: 2 }));
    let zeros = [0; 48];
    let views: Vec<_> = metadata
        .layout()
        .specs()
        .iter()
        .map(|s| {
            (format!("net.{}", s.name), TensorView::new(Dtype::F16, s.dims.clone(), &zeros[..2 * s.len()]).unwrap())
        })
        .collect();
    let json = serde_json::to_string(&metadata).unwrap();
    std::fs::write(&path, safetensors::serialize(views, Some([("diem".into(), json)].into())).unwrap()).unwrap();
    refused(&path, &["tensor net.fc.0.weight: expected float32 (F32), found F16"]);
}

#[test]
fn wrong_metadata_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("model.safetensors");
    let whole = serde_json::to_string(&unet()).unwrap();
    let cases = [
        ("not json", "expected"),
        ("{}", "kind"),
        (r#"{"kind": "gan"}"#, "unknown variant `gan`"),
        (&whole.replace("\"emb\":4", "\"emb\":5"), "emb: expected an even number, found 5"),
        (&whole.replace("\"emb\":4", "\"emb\":-4"), "invalid value"),
        (&whole.replace("\"heads\":[0,2]", "\"heads\":[0,3]"), "heads: expected a divisor of 4 channels, found 3"),
        (&whole.replace("\"blocks\":[1,1]", "\"blocks\":[1]"), "blocks: expected 2 values"),
        (&whole.replace("\"blocks\":[1,1]", "\"blocks\":[1,1000000000]"), "blocks: expected 0 to 256"),
        (&whole.replace("\"channels\":[2,4]", "\"channels\":[2,0]"), "channels: expected 1 to"),
        (&whole.replace("\"out_channels\":3", "\"out_channels\":4"), "out_channels: expected 3, found 4"),
        (&whole.replace("\"sigma_min\":0.001", "\"sigma_min\":-1"), "sigma_min"),
        (&whole.replace("\"sigma_max\":100.0", "\"sigma_max\":1e999"), "expected"),
        (&whole.replace("\"patch\":2", "\"patch\":2,\"height\":6,\"width\":8"), "multiples of 4, found 6 x 8"),
        (&whole.replace("\"patch\":2", "\"patch\":2,\"height\":8"), "both or neither"),
    ];
    for (json, part) in cases {
        let tensors: [(String, safetensors::tensor::TensorView); 0] = [];
        std::fs::write(&path, safetensors::serialize(tensors, Some([("diem".into(), json.into())].into())).unwrap())
            .unwrap();
        refused(&path, &["metadata key diem", part]);
    }
    let tensors: [(String, safetensors::tensor::TensorView); 0] = [];
    std::fs::write(&path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    refused(&path, &["metadata key diem", "found none"]);
}

#[test]
fn sizes_that_do_not_fit_are_refused() {
    let folder = TempDir::new().unwrap();
    let mut tensors = tensors(&unet());
    tensors.insert("mean".into(), (vec![48], vec![0.0; 48]));
    let checkpoint = Checkpoint::open(&write(&folder, &unet(), &tensors)).unwrap();
    let load = |h, w, c| Model::load(&Reference::new(), &checkpoint, Shape::new(1, h, w, c), true);
    assert!(load(4, 4, 3).is_ok());
    for (h, w, c, part) in [
        (6, 4, 3, "multiples of 4, found 6 x 4"),
        (0, 4, 3, "multiples of 4, found 0 x 4"),
        (4, 4, 1, "expected 3 channels, found 1"),
        (4, 8, 3, "tensor mean: expected (96), as images of 4 x 8 x 3, found (48)"),
        (1 << 40, 1 << 40, 3, "at most"),
    ] {
        let line = load(h, w, c).err().expect("it is refused").to_string();
        assert!(line.contains("model.safetensors: ") && line.contains(part), "{line}: not {part}");
    }
}
