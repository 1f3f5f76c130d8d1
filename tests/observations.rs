//! Observation files: what is accepted, what is refused and how, and what a batch of them measures.

use diem::Result;
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::data::{Array, Data, Measured, Observations, OperatorKind, npz};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder with one observation file, of arrays that a test changes.
struct File {
    dir: tempfile::TempDir,
    arrays: Vec<(&'static str, Array)>,
}

/// Values that differ everywhere.
fn values(shape: &[usize]) -> Array {
    let n = shape.iter().product::<usize>();
    Array::f32(shape, (0..n).map(|i| (i as f32 * 0.37).sin()).collect())
}

fn bits(shape: &[usize]) -> Array {
    let n = shape.iter().product::<usize>();
    Array::new(shape, Data::Bool((0..n).map(|i| i % 3 != 0).collect()))
}

impl File {
    fn new(arrays: Vec<(&'static str, Array)>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), arrays }
    }
    fn mask() -> Self {
        let noise = Array::new(&[], Data::F64(vec![0.01]));
        Self::new(vec![("y", values(&[3, 4, 5, 2])), ("noise", noise), ("mask", bits(&[3, 4, 5, 1]))])
    }
    fn dense() -> Self {
        let noise = Array::new(&[3], Data::F64(vec![0.01, 0.02, 0.03]));
        Self::new(vec![("y", values(&[3, 7])), ("noise", noise), ("A", values(&[3, 7, 40]))])
    }
    fn fourier() -> Self {
        let noise = Array::new(&[], Data::F64(vec![0.01]));
        Self::new(vec![("y", values(&[3, 4, 5, 2])), ("noise", noise), ("mask", bits(&[3, 1, 5, 1]))])
    }
    fn blur() -> Self {
        let noise = Array::new(&[], Data::F64(vec![0.01]));
        Self::new(vec![("y", values(&[3, 4, 5, 2])), ("noise", noise), ("kernel", values(&[3, 2]))])
    }
    fn downsample() -> Self {
        let noise = Array::new(&[], Data::F64(vec![0.01]));
        Self::new(vec![("y", values(&[3, 4, 5, 2])), ("noise", noise), ("factor", Array::new(&[], Data::I64(vec![2])))])
    }
    fn with(mut self, name: &'static str, array: Array) -> Self {
        self.arrays.retain(|(n, _)| *n != name);
        self.arrays.push((name, array));
        self
    }
    fn without(mut self, name: &str) -> Self {
        self.arrays.retain(|(n, _)| *n != name);
        self
    }
    fn path(&self) -> PathBuf {
        self.dir.path().join("obs.npz")
    }
    fn read(&self, kind: OperatorKind) -> Result<Observations> {
        npz::write(&self.path(), |w| self.arrays.iter().try_for_each(|(name, a)| w.add(name, a)))?;
        Observations::read(&self.path(), kind)
    }
    /// The error's line must begin with the file and the array, and say all of `parts`.
    #[track_caller]
    fn refused(self, kind: OperatorKind, array: &str, parts: &[&str]) {
        let line = self.read(kind).expect_err("should be refused").to_string();
        assert!(line.contains(&format!("{}: array {array}", self.path().display())), "{line}");
        for part in parts {
            assert!(line.contains(part), "{line:?} does not say {part:?}");
        }
        assert!(!line.contains('\n'));
    }
}

const MASK: OperatorKind = OperatorKind::Mask;
const DENSE: OperatorKind = OperatorKind::Dense;
const FOURIER: OperatorKind = OperatorKind::Fourier;
const BLUR: OperatorKind = OperatorKind::Blur;
const DOWNSAMPLE: OperatorKind = OperatorKind::Downsample;

#[test]
fn what_is_not_measured_does_not_count() {
    let mut junk = values(&[3, 4, 5, 2]);
    let Data::F32(y) = &mut junk.data else { unreachable!() };
    (y[0], y[1]) = (f32::NAN, f32::INFINITY); // pixel 0 is masked
    let observations = File::mask().with("y", junk.clone()).read(MASK).unwrap();
    assert_eq!(observations.y().data[..2], [0.0, 0.0]);
    assert_eq!(observations.digest(), File::mask().read(MASK).unwrap().digest());
    let Data::F32(y) = &mut junk.data else { unreachable!() };
    y[45] = f32::NAN; // sample 1, element 5, pixel 2: measured
    let line = File::mask().with("y", junk).read(MASK).unwrap_err().to_string();
    assert!(
        line.starts_with("non-finite value in ") && line.ends_with("obs.npz: array y, sample 1, element 5"),
        "{line}"
    );
}

#[test]
fn masks_of_every_type_and_a_shared_one() {
    let ones = |n: usize| (0..n).map(|i| u8::from(i % 3 != 0));
    for data in [
        Data::U8(ones(20).collect()),
        Data::F32(ones(20).map(f32::from).collect()),
        Data::F64(ones(20).map(f64::from).collect()),
        Data::I64(ones(20).map(i64::from).collect()),
    ] {
        let observations = File::mask().with("mask", Array::new(&[1, 4, 5, 1], data)).read(MASK).unwrap();
        let Measured::Mask(mask) = observations.measured() else { unreachable!() };
        assert_eq!(mask.data, ones(20).collect::<Vec<_>>());
        assert_eq!((observations.len(), observations.image()), (3, Some(Shape::new(1, 4, 5, 2))));
        assert_eq!(observations.y().row(2)[..2], [0.0, 0.0]);
    }
}

#[test]
fn masks_that_do_not_fit_are_refused() {
    File::mask().with("mask", bits(&[2, 4, 5, 1])).refused(MASK, "mask", &["(3, 4, 5, 1)", "found (2, 4, 5, 1)"]);
    File::mask().with("mask", bits(&[3, 5, 4, 1])).refused(MASK, "mask", &["(N or 1, H, W, 1)", "found (3, 5, 4, 1)"]);
    File::mask().with("mask", bits(&[3, 4, 5, 2])).refused(MASK, "mask", &["found (3, 4, 5, 2)"]);
    File::mask().with("mask", bits(&[3, 4, 5])).refused(MASK, "mask", &["(N or 1, H, W, 1)", "found (3, 4, 5)"]);
    let twos = Array::new(&[1, 4, 5, 1], Data::U8(vec![2; 20]));
    File::mask().with("mask", twos).refused(MASK, "mask", &["expected only 0 and 1, found 2"]);
    let halves = Array::f32(&[1, 4, 5, 1], vec![0.5; 20]);
    File::mask().with("mask", halves).refused(MASK, "mask", &["expected only 0 and 1, found 0.5"]);
    let nans = Array::f32(&[1, 4, 5, 1], vec![f32::NAN; 20]);
    File::mask().with("mask", nans).refused(MASK, "mask", &["expected only 0 and 1, found NaN"]);
}

#[test]
fn k_space_that_does_not_fit_is_refused() {
    let file = |name, array| File::fourier().with(name, array);
    file("mask", bits(&[2, 1, 5, 1])).refused(FOURIER, "mask", &["(3, 1, 5, 1)", "found (2, 1, 5, 1)"]);
    file("mask", bits(&[3, 4, 5, 1])).refused(FOURIER, "mask", &["(N or 1, 1, W, 1)", "found (3, 4, 5, 1)"]);
    file("mask", bits(&[3, 5])).refused(FOURIER, "mask", &["(N or 1, 1, W, 1)", "found (3, 5)"]);
    let twos = Array::new(&[1, 1, 5, 1], Data::U8(vec![2; 5]));
    file("mask", twos).refused(FOURIER, "mask", &["expected only 0 and 1, found 2"]);
    let wrong = &["real and imaginary part", "found (3, 4, 5, 1)"];
    file("y", values(&[3, 4, 5, 1])).refused(FOURIER, "y", wrong);
    file("y", values(&[3, 4, 5])).refused(FOURIER, "y", &["expected shape (N, H, W, 2)", "found (3, 4, 5)"]);
    file("y", values(&[1, 4097, 1, 2])).refused(FOURIER, "y", &["at most 4096", "found (1, 4097, 1, 2)"]);
    let line = File::fourier().without("mask").read(FOURIER).unwrap_err().to_string();
    assert!(line.ends_with("an array mask, found arrays noise, y"), "{line}");
}

#[test]
fn filters_that_make_no_sense_are_refused() {
    let blur = |array| File::blur().with("kernel", array);
    blur(values(&[3])).refused(BLUR, "kernel", &["expected shape (h, w)", "found (3,)"]);
    blur(values(&[0, 2])).refused(BLUR, "kernel", &["nothing empty"]);
    blur(Array::f32(&[1, 1], vec![f32::NAN])).refused(BLUR, "kernel", &["non-finite value in"]);
    blur(Array::f32(&[1, 2], vec![0.0; 2])).refused(BLUR, "kernel", &["a number that is not 0"]);
    let factor =
        |data: Data| File::downsample().with("factor", Array::new(&[data.len()][..usize::from(data.len() > 1)], data));
    factor(Data::I64(vec![0])).refused(DOWNSAMPLE, "factor", &["a whole number from 1 to 64, found 0"]);
    factor(Data::F64(vec![2.5])).refused(DOWNSAMPLE, "factor", &["a whole number from 1 to 64, found 2.5"]);
    factor(Data::I64(vec![2, 2])).refused(DOWNSAMPLE, "factor", &["expected one number, found (2,)"]);
    factor(Data::I64(vec![65])).refused(DOWNSAMPLE, "factor", &["a whole number from 1 to 64, found 65"]);
    let image = |file: File, kind| file.read(kind).unwrap().image();
    assert_eq!(image(File::blur(), BLUR), Some(Shape::new(1, 4, 5, 2)));
    assert_eq!(image(File::downsample(), DOWNSAMPLE), Some(Shape::new(1, 8, 10, 2)));
    let line =
        File::downsample().read(DOWNSAMPLE).unwrap().check_image(Shape::new(1, 4, 5, 2)).unwrap_err().to_string();
    assert!(line.contains("(N, H / 2, W / 2, 2) of the model's images, 4 x 5 x 2, found (3, 4, 5, 2)"), "{line}");
}

#[test]
fn columns_that_are_not_measured_do_not_count() {
    let mut junk = values(&[3, 4, 5, 2]);
    let Data::F32(y) = &mut junk.data else { unreachable!() };
    (y[0], y[1], y[10]) = (f32::NAN, f32::INFINITY, f32::NAN); // column 0 of sample 0, in rows 0 and 1
    let observations = File::fourier().with("y", junk.clone()).read(FOURIER).unwrap();
    assert_eq!((observations.y().data[1], observations.y().data[10]), (0.0, 0.0));
    assert_eq!(observations.digest(), File::fourier().read(FOURIER).unwrap().digest());
    assert_eq!(observations.image(), Some(Shape::new(1, 4, 5, 1)));
    let Data::F32(y) = &mut junk.data else { unreachable!() };
    y[40 + 10] = f32::NAN; // sample 1, row 1, column 0: measured
    let line = File::fourier().with("y", junk).read(FOURIER).unwrap_err().to_string();
    assert!(line.ends_with("obs.npz: array y, sample 1, element 10"), "{line}");
}

#[test]
fn measurements_that_do_not_fit_are_refused() {
    File::mask().with("y", values(&[3, 40])).refused(MASK, "y", &["expected shape (N, H, W, C)", "found (3, 40)"]);
    File::mask().with("y", values(&[0, 4, 5, 2])).refused(MASK, "y", &["nothing empty", "found (0, 4, 5, 2)"]);
    let bytes = Array::new(&[3, 4, 5, 2], Data::U8(vec![0; 120]));
    File::mask().with("y", bytes).refused(MASK, "y", &["expected elements of type float32, float64, found uint8"]);
    File::dense().with("y", values(&[3, 7, 1])).refused(DENSE, "y", &["expected shape (N, M)", "found (3, 7, 1)"]);
    File::dense().with("A", values(&[3, 6, 40])).refused(DENSE, "A", &["(N or 1, M, D)", "to go with y"]);
    File::dense().with("A", values(&[2, 7, 40])).refused(DENSE, "A", &["to go with y"]);
    File::dense().with("A", values(&[7, 40])).refused(DENSE, "A", &["expected shape (N or 1, M, D)", "found (7, 40)"]);
    for array in ["y", "A"] {
        let mut bad = File::dense();
        let (_, a) = bad.arrays.iter_mut().find(|(name, _)| *name == array).unwrap();
        let Data::F32(v) = &mut a.data else { unreachable!() };
        v[8] = f32::INFINITY;
        bad.refused(DENSE, array, &["non-finite value in", ", sample "]);
    }
}

#[test]
fn noise_must_be_positive() {
    let noise = |v: &[f64]| File::dense().with("noise", Array::new(&[v.len()], Data::F64(v.to_vec())));
    assert_eq!(noise(&[0.5]).read(DENSE).unwrap().noise(), [0.5]);
    let single = File::dense().with("noise", Array::f32(&[], vec![0.5])).read(DENSE).unwrap();
    assert_eq!(single.noise(), [0.5]);
    noise(&[0.1, 0.2]).refused(DENSE, "noise", &["expected a scalar or 3 values, as y has, found 2"]);
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        noise(&[0.1, bad, 0.1]).refused(
            DENSE,
            "noise",
            &["expected a positive standard deviation", &format!("found {bad}")],
        );
    }
    let square = Array::f32(&[3, 1], vec![0.1; 3]);
    File::dense().with("noise", square).refused(DENSE, "noise", &["expected shape () or (N,), found (3, 1)"]);
}

#[test]
fn what_is_missing_is_told_with_what_is_there() {
    for (kind, file, array) in [(MASK, File::mask(), "mask"), (DENSE, File::mask(), "A"), (MASK, File::dense(), "y")] {
        let file = file.without(array);
        let line = file.read(kind).unwrap_err().to_string();
        let mut names: Vec<_> = file.arrays.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        let end = format!("obs.npz: expected an array {array}, found arrays {}", names.join(", "));
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn files_come_back_as_written() {
    let filters = [(BLUR, File::blur()), (DOWNSAMPLE, File::downsample())];
    let others = [(MASK, File::mask()), (DENSE, File::dense()), (FOURIER, File::fourier())];
    for (kind, file) in others.into_iter().chain(filters) {
        let observations = file.read(kind).unwrap();
        observations.write().unwrap();
        let again = Observations::read(&file.path(), kind).unwrap();
        assert_eq!(again, observations);
        assert_eq!(again.digest(), observations.digest());
    }
    assert_ne!(File::mask().read(MASK).unwrap().digest(), File::dense().read(DENSE).unwrap().digest());
    let other = File::mask().with("mask", bits(&[1, 4, 5, 1])).read(MASK).unwrap();
    assert_ne!(File::mask().read(MASK).unwrap().digest(), other.digest());
}

/// A batch measures what its samples would: y - A x, with x = 0 outside of the mask.
#[test]
fn a_batch_is_bound_by_index() {
    let backend = Reference::new();
    let mask = File::mask().read(MASK).unwrap();
    let image = Shape::new(1, 4, 5, 2);
    let index = [2, 0, 2];
    let x: Vec<f32> = (0..120).map(|i| (i as f32 * 0.11).cos()).collect();
    let x_t = backend.upload(image.with_n(3), &x);

    let measurement = mask.bind(&backend, &index, image, None).unwrap();
    let residual = backend.to_vec(&measurement.residual(&backend, &x_t)).unwrap();
    let Measured::Mask(m) = mask.measured() else { unreachable!() };
    for (k, &n) in index.iter().enumerate() {
        for i in 0..40 {
            let observed = f64::from(m.row(n)[i / 2]);
            let expected = observed * (f64::from(mask.y().row(n)[i]) - f64::from(x[k * 40 + i]));
            assert_eq!(residual[k * 40 + i], expected, "f64 differences of the same two numbers");
        }
    }

    let dense = File::dense().read(DENSE).unwrap();
    let measurement = dense.bind(&backend, &index, image, None).unwrap();
    assert_eq!(backend.to_vec(&measurement.variance).unwrap(), [0.03f64 * 0.03, 0.01 * 0.01, 0.03 * 0.03]);
    let residual = backend.to_vec(&measurement.residual(&backend, &x_t)).unwrap();
    let Measured::Dense(a) = dense.measured() else { unreachable!() };
    for (k, &n) in index.iter().enumerate() {
        for (i, a) in a.row(n).chunks(40).enumerate() {
            let ax: f64 = a.iter().zip(&x[k * 40..]).map(|(a, x)| f64::from(*a) * f64::from(*x)).sum();
            let error = residual[k * 7 + i] - (f64::from(dense.y().row(n)[i]) - ax);
            assert!(error.abs() < 1e-12, "{error}: 40 products of at most 1, in f64 in any order");
        }
    }
}

/// A matrix that stands for all samples is on the device once, whatever the batch.
#[test]
fn a_shared_operator_is_bound_to_every_batch() {
    let backend = Reference::new();
    let image = Shape::new(1, 4, 5, 2);
    let shared = File::dense().with("A", values(&[1, 7, 40])).read(DENSE).unwrap();
    let operator = shared.shared_operator(&backend, image).unwrap().unwrap();
    let x_t = backend.upload(image.with_n(2), &values(&[80]).data.into_f32());
    for index in [[2, 0], [1, 1]] {
        let [once, again] = [Some(&operator), None].map(|o| shared.bind(&backend, &index, image, o).unwrap());
        assert!(Arc::ptr_eq(&once.operator, &operator) && !Arc::ptr_eq(&again.operator, &operator));
        assert_eq!(once.residual(&backend, &x_t).to_vec(), again.residual(&backend, &x_t).to_vec());
    }
    let own = File::dense().read(DENSE).unwrap();
    assert!(own.shared_operator::<Reference>(&backend, image).unwrap().is_none());
}

#[test]
fn models_of_other_images_are_refused() {
    let line = |o: &Observations, image| o.check_image(image).unwrap_err().to_string();
    let mask = File::mask().read(MASK).unwrap();
    assert!(mask.check_image(Shape::new(9, 4, 5, 2)).is_ok());
    let said = line(&mask, Shape::new(1, 4, 5, 3));
    assert!(said.contains("obs.npz: array y: expected (N, 4, 5, 3), the model's images, found (3, 4, 5, 2)"), "{said}");
    let fourier = File::fourier().read(FOURIER).unwrap();
    assert!(fourier.check_image(Shape::new(9, 4, 5, 1)).is_ok());
    let said = line(&fourier, Shape::new(1, 4, 5, 3));
    assert!(said.contains("a model of images with one channel, not of 4 x 5 x 3, found (3, 4, 5, 2)"), "{said}");
    let said = line(&fourier, Shape::new(1, 5, 5, 1));
    assert!(said.contains("(N, 5, 5, 2), k-space of the model's images, found (3, 4, 5, 2)"), "{said}");
    let dense = File::dense().read(DENSE).unwrap();
    assert!(dense.check_image(Shape::new(9, 4, 5, 2)).is_ok());
    let said = line(&dense, Shape::new(1, 4, 5, 3));
    assert!(said.contains("obs.npz: array A: expected (N or 1, M, 60), D of the model, found"), "{said}");
    assert!(
        Observations::read(Path::new("no.npz"), MASK).unwrap_err().to_string().starts_with("no.npz: cannot open: ")
    );
}
