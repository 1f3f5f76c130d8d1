//! The paper's initialisation.

use super::params::{Layout, ParamId};
use crate::ops::noise::{Purpose, Stream};

/// The initial value of a parameter: weights uniform in ±1/√fan_in, those of a modulation's last layer a tenth of that,
/// biases zero. Parameter number k of the layout reads sample k of the stream [`Purpose::Weights`] of `seed`.
pub fn initial(layout: &Layout, id: ParamId, seed: u64) -> Vec<f32> {
    let spec = &layout[id];
    if spec.dims.len() == 1 {
        return vec![0.0; spec.len()];
    }
    let fan_in: usize = spec.dims[1..].iter().product();
    let scale = if spec.name.ends_with("mod.fc2.weight") { 0.1 } else { 1.0 };
    let bound = scale / (fan_in as f64).sqrt();
    let uniforms = Stream::new(seed, Purpose::Weights).uniforms(id.index() as u32);
    uniforms.take(spec.len()).map(|u| ((2.0 * u - 1.0) * bound) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::UNetConfig;

    #[test]
    fn weights_have_the_variance_of_their_fan_in() {
        let layout = UNetConfig::preset("small").expect("a preset").layout();
        for id in layout.ids() {
            let (spec, w) = (&layout[id], initial(&layout, id, 3));
            assert_eq!(w.len(), spec.len());
            let fan_in: usize = spec.dims[1..].iter().product();
            let scale = if spec.name.ends_with("mod.fc2.weight") { 0.1 } else { 1.0 };
            let bound = if spec.dims.len() == 1 { 0.0 } else { scale / (fan_in as f64).sqrt() };
            assert!(w.iter().all(|&w| f64::from(w).abs() <= bound * (1.0 + 1e-6)), "{}", spec.name);
            let variance = w.iter().map(|&w| f64::from(w).powi(2)).sum::<f64>() / w.len() as f64;
            // the estimate's relative standard error is √(4/5 / n); five of those
            let expected = bound * bound / 3.0;
            assert!((variance - expected).abs() <= 5.0 * expected * (0.8 / w.len() as f64).sqrt(), "{}", spec.name);
        }
    }
}
