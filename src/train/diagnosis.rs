//! Where a step of training first gave a value that is not finite.

use super::data::Data;
use super::learner::Learner;
use super::trainer::Trainer;
use crate::Error;
use crate::ops::TrainingOps;
use crate::ops::noise::Stream;

impl<B: TrainingOps> Trainer<'_, B> {
    /// What to tell of a step on `samples` of an epoch with the losses `each`: the layer, the sample and the step. The samples
    /// are done once more, alone.
    pub(super) fn diagnose(
        &self,
        learner: &Learner<B>,
        data: &Data,
        run: Stream,
        (epoch, samples): (u64, &[u32]),
        each: &[f64],
    ) -> Error {
        let place = |what: &str, sample: Option<u32>| {
            let sample = sample.map_or(String::new(), |sample| format!(", sample {sample}"));
            let (step, lap) = (self.step, run.iteration);
            Error::NonFinite { place: format!("{what}{sample}, training step {step}, epoch {epoch}, lap {lap}") }
        };
        if let Some(i) = each.iter().position(|loss| !loss.is_finite()) {
            let sample = samples[i];
            let batch = self.batch(data, run, epoch, &[sample]);
            return match learner.locate_nonfinite(self.backend, &batch) {
                Ok(found) => {
                    place(&found.map_or("loss".to_owned(), |found| format!("layer {}", found.layer)), Some(sample))
                }
                Err(failure) => failure,
            };
        }
        for &sample in samples {
            match self.nonfinite_gradient(learner, data, run, (epoch, sample)) {
                Ok(None) => {}
                Ok(Some(parameter)) => return place(&format!("gradient of {parameter}"), Some(sample)),
                Err(failure) => return failure,
            }
        }
        place("norm of the gradient", None)
    }

    /// The first parameter, from the last layer on, whose gradient by one sample is not finite.
    fn nonfinite_gradient(
        &self,
        learner: &Learner<B>,
        data: &Data,
        run: Stream,
        (epoch, sample): (u64, u32),
    ) -> crate::Result<Option<String>> {
        let (batch, mut grads) = (self.batch(data, run, epoch, &[sample]), self.weights.zero_grads(self.backend));
        let samples = [sample];
        learner.gradients(self.backend, &batch, self.masks(run, epoch, &samples), 1.0, &mut grads);
        let layout = self.weights.layout();
        for id in layout.ids().collect::<Vec<_>>().into_iter().rev() {
            if self.backend.rows_finite(&grads[id])?.contains(&false) {
                return Ok(Some(layout[id].name.clone()));
            }
        }
        Ok(None)
    }
}
