//! The steps of a sampler as CUDA graphs, by recording.
//!
//! Nothing above the backend knows of it: a step is run by the same code as ever, but launches go into a list, and the
//! numbers that the host gives to kernels go into a row of a table, [`super::Scalar`] pointing at their slots. Steps whose
//! lists agree in every kernel, shape and argument are one graph. It begins with a kernel that fetches the next row of the
//! table, so replaying it does the step again with the next numbers: nothing is allocated, nobody waits.

use super::driver::{Args, Graph, Launch};
use super::{Cuda, CudaTensor};
use crate::Result;
use crate::backend::{Array, Backend, Shape, one_by_one};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The table of scalars may take this many bytes; a step that is given more (a matrix at every noise level, say) is not
/// recorded.
const LARGEST_TABLE: usize = 64 << 20;
/// Graphs that are kept for the next batch.
const KEPT: usize = 8;
/// Why a step fails whose numbers do not fit the row that the first step made room for.
pub(super) const FULL: &str = "a recorded step is given more numbers than the first one";

/// What launches and numbers go into while a step is recorded.
#[derive(Default)]
pub(super) struct Recorder {
    state: Mutex<Option<Recording>>,
    pub words: AtomicUsize, // that the host has given to kernels so far
    graphs: Mutex<Vec<Recorded>>,
}

struct Recording {
    launches: Vec<Launch>,
    row: Vec<u32>,
    capacity: usize, // of the row, in words
    address: u64,    // of the row, when the step runs
}

/// A list of launches, and the graph of them.
#[derive(Clone)]
struct Recorded {
    launches: Vec<Launch>,
    graph: Arc<dyn Graph>,
}

/// Where words of the host lie for a kernel.
pub(super) enum Slots {
    /// Nothing is recorded: the kernel takes the words themselves.
    None,
    /// In the row of scalars, at this address.
    At(u64),
    /// Nowhere: the row is full.
    Full,
}

impl Recorder {
    fn state(&self) -> MutexGuard<'_, Option<Recording>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    pub fn is_recording(&self) -> bool {
        self.state().is_some()
    }
    /// Records the launch, or gives it back when nothing is recorded.
    pub fn take_in(&self, launch: Launch) -> Option<Launch> {
        match &mut *self.state() {
            Some(recording) => {
                recording.launches.push(launch);
                None
            }
            None => Some(launch),
        }
    }
    /// Slots for `bytes` in the row of the step, aligned to 16 bytes when they are more than one word.
    pub fn slots(&self, bytes: &[u8]) -> Slots {
        let align = if bytes.len() > 4 { 4 } else { 1 };
        let mut state = self.state();
        let Some(Recording { row, capacity, address, .. }) = &mut *state else {
            self.words.fetch_add(bytes.len().div_ceil(4) + align - 1, Ordering::Relaxed);
            return Slots::None;
        };
        row.resize(row.len().next_multiple_of(align), 0);
        let first = row.len();
        row.extend(bytes.chunks(4).map(|chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            u32::from_ne_bytes(word)
        }));
        if row.len() > *capacity { Slots::Full } else { Slots::At(*address + 4 * first as u64) }
    }
    pub fn begin(&self, now: &CudaTensor) {
        let (capacity, address) = (now.shape().len(), now.address());
        *self.state() = Some(Recording { launches: Vec::new(), row: Vec::new(), capacity, address });
    }
    pub fn end(&self) -> (Vec<Launch>, Vec<u32>) {
        self.state().take().map_or_else(Default::default, |recording| (recording.launches, recording.row))
    }
}

/// The numbers of all recorded steps, and which step is next.
struct Scalars {
    now: CudaTensor,   // (width) the row of the step that runs
    table: CudaTensor, // (steps, width)
    index: CudaTensor, // (1), u32
}

impl Scalars {
    fn new(backend: &Cuda, width: usize, steps: usize) -> Self {
        let [now, table] = [width, width * steps].map(|words| backend.alloc(Shape::flat(words)));
        Self { now, table, index: backend.zeros(Shape::flat(1)) }
    }
}

impl Cuda {
    /// [`Backend::steps`]. The first step is run as it comes: it brings the pool all memory of a step, and shows how many
    /// numbers a step is given. The others are recorded, then replayed.
    pub(super) fn replay(
        &self,
        count: usize,
        step: &mut dyn FnMut(usize) -> Result<()>,
        done: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let before = self.recorder.words.load(Ordering::Relaxed);
        one_by_one(0..count.min(1), step, done)?;
        let words = self.recorder.words.load(Ordering::Relaxed) - before;
        let width = (words + words / 4 + 64).next_multiple_of(4); // other steps may be given some more
        if !self.options.record || count < 2 || 4 * width * count > LARGEST_TABLE {
            return one_by_one(1..count, step, done);
        }
        // taken before a step is recorded: what a recorded step uses is free when it has been recorded
        let scalars = Scalars::new(self, width, count - 1);
        let (mut table, mut lists, mut list_of) = (Vec::new(), Vec::<Vec<Launch>>::new(), Vec::new());
        for i in 1..count {
            self.recorder.begin(&scalars.now);
            let result = step(i);
            let (launches, mut row) = self.recorder.end();
            result?;
            self.report()?;
            row.resize(width, 0);
            table.extend(row);
            let known = lists.iter().rposition(|list| *list == launches);
            list_of.push(known.unwrap_or(lists.len()));
            if known.is_none() {
                lists.push(launches);
            }
        }
        self.driver.upload(scalars.table.address(), bytemuck::cast_slice(&table))?;
        self.run_recorded(&scalars, lists, &list_of, done)
    }

    /// Launches the graph of list `list_of[i]` for every row i of the table.
    fn run_recorded(
        &self,
        Scalars { now, table, index }: &Scalars,
        lists: Vec<Vec<Launch>>,
        list_of: &[usize],
        done: &mut dyn FnMut(usize),
    ) -> Result<()> {
        let begin = Args::new().ptr(now).ptr(table).ptr(index).arg(now.shape().len() as u32);
        let begin = Launch::blocks("begin_step", 1, 256, begin);
        let graphs = lists.into_iter().map(|mut launches| {
            launches.insert(0, begin.clone());
            self.graph(launches)
        });
        let graphs = graphs.collect::<Result<Vec<_>>>()?;
        for (i, &list) in list_of.iter().enumerate() {
            // SAFETY: the arrays of the launches are in the pool, which frees nothing while graphs are kept; those that
            // outlive a step are held by the caller.
            unsafe { graphs[list].launch() }?;
            self.driver.pace()?;
            done(i + 2); // the first step has been done before
        }
        Ok(())
    }

    /// The graph of a list: that of an earlier batch if there is one.
    fn graph(&self, launches: Vec<Launch>) -> Result<Arc<dyn Graph>> {
        let mut kept = self.recorder.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.iter().find(|known| known.launches == launches) {
            return Ok(known.graph.clone());
        }
        let graph: Arc<dyn Graph> = self.driver.graph(&launches)?.into();
        kept.truncate(KEPT - 1);
        kept.insert(0, Recorded { launches, graph: graph.clone() });
        Ok(graph)
    }

    /// Gives free memory back to the device, and with it the graphs that may use it.
    pub(super) fn trim(&self) -> Result<()> {
        self.recorder.graphs.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.pool.trim()
    }
}
