//! The time of a step of training.

use super::step::StepRow;
use crate::Result;
use crate::backend::Shape;
use crate::backend::timed::Timing;
use crate::check::case::{Input, draw};
use crate::data::Samples;
use crate::data::checkpoint::Metadata;
use crate::nn::Flops;
use crate::ops::TrainingOps;
use crate::ops::noise::{Purpose, Stream};
use crate::train::{Data, Initial, Settings, Trainer};
use std::time::Instant;

/// Steps that only fill caches and the pool.
const WARM_UP: usize = 2;

/// Times whole steps of training on random images `image` (N, H, W, C), a batch of N, with the paper's dropout: noise, packing
/// of the weights, forward, backward, clipping, Adam and moving average. `flops` is the network's work for one image. A step
/// ends with reading its loss, so the host's clock is right on every device.
///
/// # Errors
/// When the network is not to be trained, or the device has failed.
pub fn run<B: TrainingOps>(
    backend: &B,
    metadata: &Metadata,
    image: Shape,
    flops: Option<Flops>,
    (repeat, seed): (usize, u64),
) -> Result<StepRow> {
    let settings = Settings { batch: image.n, micro_batch: image.n, ..Settings::default() };
    let steps = (WARM_UP + repeat) as u64;
    let mut trainer = Trainer::new(backend, metadata, image, settings, Initial::Seed(seed), steps)?;
    let x = draw(&[Input::normal("x", image)], seed).swap_remove(0);
    let data = Data::new(Samples::new(image, x.iter().map(|x| *x as f32).collect()));
    let run = Stream::new(seed, Purpose::Test);
    let mut step = || {
        trainer.step(&data, run)?;
        backend.finish()
    };
    (0..WARM_UP).try_for_each(|_| step())?;
    let fresh = backend.memory().fresh;
    let mut seconds = Vec::with_capacity(repeat);
    for _ in 0..repeat.max(1) {
        let start = Instant::now();
        step()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let Timing { seconds, fastest, fresh } = Timing::new(seconds, backend.memory().fresh - fresh);
    let flops = flops.map(|flops| image.n as f64 * (flops.forward + flops.vjp + flops.params));
    Ok(StepRow {
        what: "training step".to_owned(),
        batch: image.n,
        seconds,
        fastest,
        flops,
        fresh,
        images_per_second: None,
    })
}
