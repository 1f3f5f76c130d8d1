//! Marks in a queue, and the time between them.

use super::{Context, check};
use crate::Result;
use cudarc::driver::sys;
use std::ffi::c_uint;
use std::ptr::null_mut;

/// A mark that has a time.
struct Event<'a> {
    context: &'a Context,
    raw: sys::CUevent,
}

impl<'a> Event<'a> {
    /// Puts a mark behind what is queued.
    fn record(context: &'a Context) -> Result<Self> {
        context.bind()?;
        let mut raw = null_mut();
        let timed = sys::CUevent_flags::CU_EVENT_DEFAULT as c_uint;
        // SAFETY: the context is current; the handle is written to a live variable.
        check(unsafe { sys::cuEventCreate(&mut raw, timed) }, "an event of the device")?;
        let event = Self { context, raw };
        // SAFETY: event and stream are the context's.
        check(unsafe { sys::cuEventRecord(raw, context.stream) }, "an event of the device")?;
        Ok(event)
    }
    /// Seconds from `before` to this one; the device has passed both.
    fn since(&self, before: &Self) -> Result<f64> {
        let mut milliseconds = 0f32;
        // SAFETY: both events are recorded; the pointer is to a live number.
        let result = unsafe { sys::cuEventElapsedTime(&mut milliseconds, before.raw, self.raw) };
        check(result, "the time between events of the device")?;
        Ok(f64::from(milliseconds) * 1e-3)
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the handle is not used any more.
            let _ = unsafe { sys::cuEventDestroy_v2(self.raw) };
        }
    }
}

/// [`super::Driver::laps`]: all are queued before the first is waited for, a mark between any two.
pub fn laps(context: &Context, count: usize, lap: &mut dyn FnMut() -> Result<()>) -> Result<Vec<f64>> {
    let mut marks = vec![Event::record(context)?];
    for _ in 0..count {
        lap()?;
        marks.push(Event::record(context)?);
    }
    context.synchronize()?;
    marks.windows(2).map(|pair| pair[1].since(&pair[0])).collect()
}
