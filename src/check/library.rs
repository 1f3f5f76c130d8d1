//! Linear layers by the vendor's library of matrix products: an oracle that shares nothing with ours, and a yardstick.

use super::bench::BenchRow;
use super::case::Case;
use super::cases::{Linear, linears};
use super::{CheckRow, norm, relative_error};
use crate::Result;
use crate::backend::timed::{Roofline, Timed, Timing};
use crate::backend::{Array, Shape};
use crate::ops::TrainingOps;

/// Compares our products with the library's for the layers whose "op size" contains `filter`; nothing without a library.
///
/// # Errors
/// When the device, or the library, has failed.
pub fn check<B: TrainingOps + Timed>(
    filter: &str,
    seed: u64,
    backend: &B,
    mut row: impl FnMut(CheckRow),
) -> Result<()> {
    let Some(Ok(library)) = backend.library() else { return Ok(()) };
    for layer in linears(1).into_iter().filter(|layer| layer.matches(filter)) {
        let [x, w] = operands(backend, &layer, |slot| layer.inputs()[slot].draw(seed, slot));
        let (y, _) = backend.library_linear(&x, &w, layer.c_out)?;
        let (c_in, w) = (layer.x.c, backend.upload(w.shape(), &backend.to_vec(&w)?));
        let ours = backend.linear_forward(&backend.linear(c_in, layer.c_out, &w, None), &x);
        let (ours, theirs) = (backend.to_vec(&ours)?, backend.to_vec(&y)?);
        let bound = if backend.coarse() { layer.coarse_bound() } else { layer.bound() };
        let error = relative_error(&ours, &theirs, norm(&theirs));
        row(CheckRow::new(&layer, format!("y: {} against {library}", backend.name()), error, bound));
    }
    Ok(())
}

/// Times the library's products for the layers whose "op size" contains `filter`; nothing without a library.
///
/// # Errors
/// As [`check`].
pub fn bench<B: TrainingOps + Timed>(
    filter: &str,
    batch: usize,
    backend: &B,
    roof: &Roofline,
    mut row: impl FnMut(BenchRow),
) -> Result<()> {
    if !matches!(backend.library(), Some(Ok(_))) {
        return Ok(());
    }
    for layer in linears(batch).into_iter().filter(|layer| layer.matches(filter)) {
        let [x, w] = operands(backend, &layer, |slot| layer.inputs()[slot].repeated(slot));
        let (_, Timing { fastest, .. }) = backend.library_linear(&x, &w, layer.c_out)?;
        let work = layer.work();
        let costs = (work.flops, work.bytes(backend.coarse()));
        row(BenchRow::new(layer.op(), layer.size(), "forward, cuBLAS", costs, fastest, roof));
    }
    Ok(())
}

/// x and w, both in the network's precision.
fn operands<B: Timed, T: crate::backend::Real>(
    backend: &B,
    layer: &Linear,
    values: impl Fn(usize) -> Vec<T>,
) -> [B::Tensor; 2] {
    let shapes = [layer.x, Shape::flat(layer.x.c * layer.c_out)];
    [0, 1].map(|slot| backend.upload_activation(shapes[slot], &values(slot)))
}
