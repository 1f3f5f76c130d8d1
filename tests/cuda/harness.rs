//! Runs an op on the emulator, under every schedule, or on a GPU, and compares it with the reference.

use diem::backend::cuda::cudarc::Gpu;
use diem::backend::cuda::driver::Driver;
use diem::backend::cuda::emulated::{self, Config, Emulated};
use diem::backend::cuda::{Cuda, CudaTensor, Dtype, Options, from_bf16, to_bf16};
use diem::backend::host::HostTensor;
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::ops::Noise;
use diem::ops::noise::{Purpose, Stream};
use std::io::Write;
use std::panic::Location;
use std::sync::{Arc, OnceLock};

/// The environment variable that names the one device that all tests run on, once: `cuda`, `cuda:INDEX`, or `emulated` with its
/// first schedule. A test that breaks a GPU breaks it for those after it: `tools/gpu_check.sh` gives each a process of its own.
const DEVICE: &str = "DIEM_TEST_DEVICE";

/// What runs a test's kernels.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The emulator, as told.
    Emulated(Config),
    /// The GPU of this number.
    Gpu(usize),
}

impl Default for Place {
    fn default() -> Self {
        Self::or_emulated(Config::default())
    }
}

impl Place {
    /// What [`DEVICE`] names.
    fn named() -> Option<Self> {
        let name = std::env::var(DEVICE).ok()?;
        let index = if name == "cuda" { Some("0") } else { name.strip_prefix("cuda:") };
        Some(match (&name[..], index.and_then(|index| index.parse().ok())) {
            ("emulated", _) => Self::Emulated(Config::default()),
            (_, Some(index)) => Self::Gpu(index),
            _ => panic!("{DEVICE}: cuda, cuda:INDEX or emulated, not {name}"),
        })
    }
    /// The GPU where one is named, else the emulator.
    pub fn or_emulated(config: Config) -> Self {
        match Self::named() {
            Some(gpu @ Self::Gpu(_)) => gpu,
            _ => Self::Emulated(config),
        }
    }
    /// A device with its own counters, and where `wgmma`, with wgmma if it can have that. Small arrays fill the few
    /// multiprocessors that it seems to have, so that they are given every kind of tile on any GPU.
    fn driver(self, wgmma: bool) -> Arc<dyn Driver> {
        match self {
            Self::Emulated(config) => Arc::new(Emulated::with_wgmma(config, wgmma).expect("the emulator of the tests")),
            Self::Gpu(index) => {
                let gpu = Gpu::open(index).unwrap_or_else(|error| panic!("{DEVICE}: {error}"));
                Arc::new(gpu.seen_as(|properties| {
                    properties.multiprocessors = emulated::MULTIPROCESSORS;
                    properties.wgmma &= wgmma;
                }))
            }
        }
    }
    /// The same, but all tests of the process share a GPU, which takes long to open.
    fn shared_driver(self, wgmma: bool) -> Arc<dyn Driver> {
        static OPEN: [OnceLock<Arc<dyn Driver>>; 2] = [const { OnceLock::new() }; 2];
        match self {
            Self::Emulated(_) => self.driver(wgmma),
            Self::Gpu(_) => OPEN[usize::from(wgmma)].get_or_init(|| self.driver(wgmma)).clone(),
        }
    }
}

/// Whether the test that calls this has nothing to do on one device; it is then told as skipped.
#[track_caller]
pub fn skipped_on_one_device(why: &str) -> bool {
    let skipped = Place::named().is_some();
    if skipped {
        skip(why);
    }
    skipped
}

/// Tells that the test that calls this has nothing to do; nothing captures the line.
#[track_caller]
pub fn skip(why: &str) {
    let at = Location::caller();
    let _ = writeln!(std::io::stderr(), "skipped: {}:{}: {why}", at.file(), at.line());
}

/// An array that an op is given, with elements that its type represents.
pub struct Input {
    pub shape: Shape,
    pub dtype: Dtype,
    pub values: Vec<f64>,
}

impl Input {
    /// These elements, rounded to `dtype`.
    pub fn new(shape: Shape, dtype: Dtype, values: impl IntoIterator<Item = f64>) -> Self {
        let round = |x: f64| match dtype {
            Dtype::F32 => f64::from(x as f32),
            Dtype::Bf16 => f64::from(from_bf16(to_bf16(x as f32))),
        };
        let values: Vec<f64> = values.into_iter().map(round).collect();
        assert_eq!(values.len(), shape.len());
        Self { shape, dtype, values }
    }
    /// N(0, 1); `slot` tells the inputs of a test apart.
    pub fn normal(shape: Shape, dtype: Dtype, slot: usize) -> Self {
        let stream = Stream::new(3, Purpose::Test).at(slot, 0);
        Self::new(shape, dtype, Reference::new().noise_normal(Shape::flat(shape.len()), stream, &[0]).iter().copied())
    }
    /// One of its samples.
    pub fn sample(&self, n: usize) -> Self {
        let row = self.shape.row();
        Self::new(self.shape.with_n(1), self.dtype, self.values[n * row..][..row].iter().copied())
    }
    /// N(0, 1) in f32.
    pub fn f32(shape: Shape, slot: usize) -> Self {
        Self::normal(shape, Dtype::F32, slot)
    }
}

/// A device with poisoned arrays.
pub fn device(place: Place, precision: Dtype) -> Cuda {
    Cuda::new(place.shared_driver(false), Options { precision, record: false, poison: true })
}

/// The same for bf16, with the kernels of sm_90a; none where the device has not got them.
pub fn hopper(place: Place) -> Option<Cuda> {
    let driver = place.shared_driver(true);
    let options = Options { precision: Dtype::Bf16, record: false, poison: true };
    driver.properties().wgmma.then(|| Cuda::new(driver, options))
}

/// A device whose counters are the test's alone.
pub fn counted(place: Place, precision: Dtype, record: bool) -> Cuda {
    Cuda::new(place.driver(false), Options { precision, record, poison: true })
}

/// Every policy with early and late asynchronous copies, in the plain and in the race build; or the one device, once.
pub fn schedules() -> impl Iterator<Item = Place> {
    let one = Place::named();
    let all = Config::all().filter(move |_| one.is_none()).map(Place::Emulated);
    one.into_iter().chain(all)
}

/// Runs an op on the reference and, under every schedule, on a device with networks in `precision`; each
/// output must be within `bound` of the reference's, relative in norm. Returns the largest error.
pub fn agree(
    inputs: &[Input],
    precision: Dtype,
    bound: f64,
    reference: impl Fn(&Reference, &[HostTensor<f64>]) -> Vec<HostTensor<f64>>,
    cuda: impl Fn(&Cuda, &[CudaTensor]) -> Vec<CudaTensor>,
) -> f64 {
    agree_under(schedules(), inputs, precision, bound, reference, cuda)
}

/// The same under some schedules.
pub fn agree_under(
    places: impl Iterator<Item = Place>,
    inputs: &[Input],
    precision: Dtype,
    bound: f64,
    reference: impl Fn(&Reference, &[HostTensor<f64>]) -> Vec<HostTensor<f64>>,
    cuda: impl Fn(&Cuda, &[CudaTensor]) -> Vec<CudaTensor>,
) -> f64 {
    agree_on(places.map(|place| (place, device(place, precision))), inputs, bound, reference, cuda)
}

/// The same on some devices.
pub fn agree_on(
    devices: impl Iterator<Item = (Place, Cuda)>,
    inputs: &[Input],
    bound: f64,
    reference: impl Fn(&Reference, &[HostTensor<f64>]) -> Vec<HostTensor<f64>>,
    cuda: impl Fn(&Cuda, &[CudaTensor]) -> Vec<CudaTensor>,
) -> f64 {
    let definition = Reference::new();
    let x: Vec<_> = inputs.iter().map(|input| definition.upload(input.shape, &input.values)).collect();
    let expected: Vec<Vec<f64>> = reference(&definition, &x).iter().map(|y| y.to_vec()).collect();
    let mut worst = 0.0f64;
    for (place, device) in devices {
        let x: Vec<_> = inputs.iter().map(|input| device.upload_as(input.shape, &input.values, input.dtype)).collect();
        let found = cuda(&device, &x);
        assert_eq!(found.len(), expected.len(), "outputs");
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let found = device.to_vec(found).unwrap_or_else(|error| panic!("{place:?}: {error}"));
            let error = relative_error(&found, expected);
            assert!(error <= bound, "output {i}, {place:?}: relative error {error:.1e}, at most {bound:.0e}");
            worst = worst.max(error);
        }
    }
    worst
}

/// Runs an op on a batch and on each of its samples alone: the bits must be the same. Inputs of one row are shared by the
/// samples; outputs have a row for each.
pub fn same_bits_alone(inputs: &[Input], cuda: impl Fn(&Cuda, &[CudaTensor]) -> Vec<CudaTensor>) {
    let device = device(Place::default(), Dtype::F32);
    let run = |inputs: &[Input]| {
        let upload = |input: &Input| device.upload_as(input.shape, &input.values, input.dtype);
        let found = cuda(&device, &inputs.iter().map(upload).collect::<Vec<_>>());
        found.iter().map(|y| device.to_vec(y).expect("no failure")).collect::<Vec<_>>()
    };
    let (all, batch) = (run(inputs), inputs[0].shape.n);
    for n in 0..batch {
        let alone: Vec<_> =
            inputs.iter().map(|input| if input.shape.n == 1 { input.sample(0) } else { input.sample(n) }).collect();
        for (i, (alone, all)) in run(&alone).iter().zip(&all).enumerate() {
            let row = &all[n * alone.len()..][..alone.len()];
            let same = alone.iter().zip(row).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "output {i} of sample {n} depends on the batch");
        }
    }
}

/// |found - expected| / |expected|; infinite when a value is not finite.
pub fn relative_error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len(), "elements");
    if !found.iter().chain(expected).all(|x| x.is_finite()) {
        return f64::INFINITY;
    }
    let norm = |x: &mut dyn Iterator<Item = f64>| x.map(|x| x * x).sum::<f64>().sqrt();
    let error = norm(&mut found.iter().zip(expected).map(|(f, e)| f - e));
    if error == 0.0 { 0.0 } else { error / norm(&mut expected.iter().copied()) }
}
