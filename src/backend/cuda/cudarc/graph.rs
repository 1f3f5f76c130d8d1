//! Kernels queued together.

use super::{Context, Gpu, check, parameters};
use crate::Result;
use crate::backend::cuda::driver::{Graph, Launch};
use cudarc::driver::sys;
use std::ptr::{null, null_mut};
use std::sync::Arc;

impl Gpu {
    /// Adds each launch to `graph` behind the one before, and makes it ready.
    pub(super) fn chain(&self, graph: sys::CUgraph, launches: &[Launch]) -> Result<Chain> {
        let mut last: Option<sys::CUgraphNode> = None;
        for launch in launches {
            let mut args = parameters(launch);
            let params = sys::CUDA_KERNEL_NODE_PARAMS {
                func: self.function(launch.kernel)?,
                gridDimX: launch.grid[0],
                gridDimY: launch.grid[1],
                gridDimZ: launch.grid[2],
                blockDimX: launch.block[0],
                blockDimY: launch.block[1],
                blockDimZ: launch.block[2],
                sharedMemBytes: launch.shared,
                kernelParams: args.as_mut_ptr(),
                extra: null_mut(),
                kern: null_mut(),
                ctx: null_mut(),
            };
            let (mut node, before) = (null_mut(), last.as_ref().map_or(null(), |last| last as *const _));
            // SAFETY: the graph is alive; the arguments are copied during the call.
            let added =
                unsafe { sys::cuGraphAddKernelNode_v2(&mut node, graph, before, usize::from(last.is_some()), &params) };
            check(added, &launch.to_string())?;
            last = Some(node);
        }
        let mut ready = null_mut();
        // SAFETY: the graph is complete.
        check(unsafe { sys::cuGraphInstantiateWithFlags(&mut ready, graph, 0) }, "a graph")?;
        Ok(Chain { context: self.context.clone(), ready })
    }
}

/// A graph that can be launched.
pub(super) struct Chain {
    context: Arc<Context>,
    ready: sys::CUgraphExec,
}

// SAFETY: the handle is only used while the context is current, in calls that CUDA allows from any thread; two launches
// of one graph are queued one after the other.
unsafe impl Send for Chain {}
// SAFETY: as above.
unsafe impl Sync for Chain {}

impl Graph for Chain {
    unsafe fn launch(&self) -> Result<()> {
        self.context.count().graphs += 1;
        self.context.bind()?;
        // SAFETY: the graph is ready; its kernels' arguments are the caller's promise.
        check(unsafe { sys::cuGraphLaunch(self.ready, self.context.stream) }, "launch of a graph")
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the handle is not used any more; CUDA waits for what is running.
            let _ = unsafe { sys::cuGraphExecDestroy(self.ready) };
        }
    }
}
