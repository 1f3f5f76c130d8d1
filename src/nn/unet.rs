//! The noise-conditional U-Net (Rozet et al., 2024, appendix C).

use super::blocks::{Block, BlockGrads, BlockSaved, Pass};
use super::config::UNetConfig;
use super::layers::{Builder, ConvLayer, LinearLayer, ModulationSaved};
use super::params::{Grads, ParamId};
use super::{Network, NonFinite, first_nonfinite};
use crate::Result;
use crate::backend::{Array, Keep, Shape};
use crate::ops::Ops;
use crate::ops::channel_norm::Modulation;
use crate::ops::dropout::Masks;
use std::borrow::Borrow;
use std::sync::Arc;

/// stem, levels down (strided convolution and norm between them), levels up (norm, upsampling, concatenation with the
/// level's features from the way down and convolution between them), head.
///
/// # Shapes
/// (N, H, W, C) to the same; H and W are multiples of [`UNetConfig::divisor`].
///
/// # Reference
/// Ronneberger et al., 2015; Rozet et al., *Learning Diffusion Priors from Observations by Expectation Maximization*,
/// NeurIPS 2024, appendix C.
pub struct UNet<B: Ops> {
    config: UNetConfig,
    stem: ConvLayer<B>,
    down: Vec<Level<B>>,
    up: Vec<Level<B>>,
    head: LinearLayer<B>,
}

struct Level<B: Ops> {
    blocks: Vec<Block<B>>,
    /// Position of the first block's modulation in the condition.
    first: usize,
    /// The convolution that the level starts with: down, with stride 2, in all but the first; up, the merging one, in all
    /// but the deepest.
    entry: Option<ConvLayer<B>>,
}

/// The modulations of all blocks, those on the way down first.
pub struct UNetCondition<B: Ops> {
    modulations: Vec<Modulation<B>>,
    saved: Option<ConditionSaved<B>>,
}

struct ConditionSaved<B: Ops> {
    /// (R, 1, 1, E).
    embedding: B::Tensor,
    modulations: Vec<ModulationSaved<B>>,
}

/// What the VJPs of a U-Net need.
pub struct UNetSaved<B: Ops> {
    down: Vec<LevelSaved<B>>,
    up: Vec<LevelSaved<B>>,
    /// Inputs of stem and head, for their parameters.
    ends: Option<(B::Tensor, Arc<B::Tensor>)>,
}

struct LevelSaved<B: Ops> {
    /// (y, rstd) of the norm before the blocks on the way down, after them on the way up.
    norm: Option<(Arc<B::Tensor>, B::Tensor)>,
    blocks: Vec<BlockSaved<B>>,
    /// Inputs of the level's first convolution, for its parameters: x on the way down; x and the skip on the way up.
    entry: Vec<Arc<B::Tensor>>,
}

impl<B: Ops> LevelSaved<B> {
    fn new() -> Self {
        Self { norm: None, blocks: Vec::new(), entry: Vec::new() }
    }
}

impl<B: Ops> UNet<B> {
    /// Packs the network for images of about `h` x `w` pixels; `values` gives each parameter of [`UNetConfig::layout`],
    /// flat. Without `vjp` it has forwards only, and takes half the memory.
    pub fn new<T: Borrow<B::Tensor>>(
        backend: &B,
        config: &UNetConfig,
        (h, w): (usize, usize),
        vjp: bool,
        values: impl Fn(ParamId) -> T,
    ) -> Self {
        let layout = config.layout();
        let builder = Builder { backend, layout: &layout, values, vjp };
        let (h, w) = (h / config.patch, w / config.patch);
        let input = Shape::new(1, h, w, config.in_channels * config.patch * config.patch);
        let c = &config.channels;
        let extents = |i: usize| Shape::new(1, h >> i, w >> i, c[i]);
        let mut first = 0;
        let mut level = |way: &str, i: usize, entry: Option<ConvLayer<B>>| {
            let mut blocks = Vec::new();
            for j in 0..config.blocks[i] {
                blocks.push(Block::res(&builder, format!("{way}.{i}.res.{j}"), extents(i)));
                if config.heads(i) > 0 {
                    blocks.push(Block::attn(&builder, format!("{way}.{i}.attn.{j}"), config.heads(i)));
                }
            }
            first += blocks.len();
            Level { first: first - blocks.len(), blocks, entry }
        };
        let down = (0..c.len()).map(|i| {
            let sample = |i| builder.convolution(format!("down.{i}.sample"), extents(i - 1), 2);
            level("down", i, (i > 0).then(|| sample(i)))
        });
        let down = down.collect();
        let up = (0..c.len()).map(|i| {
            let merge = |i| builder.merge(format!("up.{i}.merge"), extents(i).with_c(c[i + 1] + c[i]), c[i + 1]);
            level("up", i, (i + 1 < c.len()).then(|| merge(i)))
        });
        let up = up.collect();
        let (stem, head) = (builder.convolution("stem".into(), input, 1), builder.linear("head".into()));
        Self { config: config.clone(), stem, down, up, head }
    }

    /// What it was made from.
    pub fn config(&self) -> &UNetConfig {
        &self.config
    }

    /// A forward that shows every layer's output to `probe`.
    fn run(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &UNetCondition<B>,
        pass: Pass<'_>,
        mut probe: impl FnMut(&str, &B::Tensor),
    ) -> (B::Tensor, Option<UNetSaved<B>>) {
        let (shape, keep) = (x.shape(), pass.keep);
        let divisor = self.config.divisor();
        assert!(
            shape.c == self.config.in_channels && shape.h.is_multiple_of(divisor) && shape.w.is_multiple_of(divisor),
            "images {shape:?} for a network of {} channels and multiples of {divisor} pixels",
            self.config.in_channels
        );
        let patch = self.config.patch;
        let folded = (patch > 1).then(|| backend.patch_fold(x, patch));
        let input = folded.as_ref().unwrap_or(x);
        let mut x = Arc::new(backend.conv2d_forward(&self.stem.k, input));
        probe(&self.stem.name, &x);
        let input = (keep == Keep::All).then(|| backend.copy(input));
        drop(folded);

        let (mut down, mut up, mut skips) = (Vec::new(), Vec::new(), Vec::new());
        for level in &self.down {
            let mut saved = LevelSaved::new();
            if let Some(sample) = &level.entry {
                saved.keep_entry(keep, [&x]);
                let (y, rstd) = backend.channel_norm_forward(&backend.conv2d_forward(&sample.k, &x), None);
                x = Arc::new(y);
                probe(&sample.name, &x);
                saved.keep_norm(keep, &x, rstd);
            }
            level.blocks_forward(backend, &mut x, condition, pass, &mut saved, &mut probe);
            skips.push(x.clone());
            down.push(saved);
        }
        skips.pop(); // the deepest level goes up directly
        for level in self.up.iter().rev() {
            let mut saved = LevelSaved::new();
            if let Some(merge) = &level.entry {
                let skip = skips.pop().expect("one for every merge");
                saved.keep_entry(keep, [&x, &skip]);
                x = Arc::new(backend.merge_forward(&merge.k, &x, &skip));
                probe(&merge.name, &x);
            }
            level.blocks_forward(backend, &mut x, condition, pass, &mut saved, &mut probe);
            if up.len() + 1 < self.up.len() {
                let (y, rstd) = backend.channel_norm_forward(&x, None);
                x = Arc::new(y);
                saved.keep_norm(keep, &x, rstd);
            }
            up.push(saved);
        }
        up.reverse();

        let mut y = backend.linear_forward(&self.head.k, &x);
        probe(&self.head.name, &y);
        if patch > 1 {
            y = backend.patch_unfold(&y, patch);
        }
        let saved = (keep != Keep::Nothing).then(|| UNetSaved { down, up, ends: input.map(|input| (input, x)) });
        (y, saved)
    }

    /// dx; with `grads` also adds the parameter gradients.
    fn pull_back(
        &self,
        backend: &B,
        condition: &UNetCondition<B>,
        saved: &UNetSaved<B>,
        dy: &B::Tensor,
        mut grads: Option<&mut Grads<B>>,
    ) -> B::Tensor {
        let patch = self.config.patch;
        let folded = (patch > 1).then(|| backend.patch_fold(dy, patch));
        let dy = folded.as_ref().unwrap_or(dy);
        let ends = || saved.ends.as_ref().expect("the forward kept all");
        if let Some(grads) = grads.as_deref_mut() {
            self.head.vjp_params(backend, &ends().1, dy, grads);
        }
        let mut dx = backend.linear_vjp(&self.head.k, dy);
        drop(folded);

        let mut dskips = Vec::new();
        for (level, saved) in self.up.iter().zip(&saved.up) {
            if let Some((y, rstd)) = &saved.norm {
                dx = backend.channel_norm_vjp(y, rstd, None, &dx);
            }
            level.blocks_vjp(backend, &mut dx, condition, saved, grads.as_deref_mut());
            if let Some(merge) = &level.entry {
                if let Some(grads) = grads.as_deref_mut() {
                    let [dw, db] = grads.get_many_mut([merge.w, merge.b]);
                    backend.merge_vjp_params(&merge.k, &saved.entry[0], &saved.entry[1], &dx, dw, db);
                }
                let c2 = dx.shape().c;
                let (d, dskip) = backend.merge_vjp(&merge.k, merge.spec.c_in - c2, c2, &dx);
                dx = d;
                dskips.push(dskip);
            }
        }
        for (i, (level, saved)) in self.down.iter().zip(&saved.down).enumerate().rev() {
            if i + 1 < self.down.len() {
                backend.add_assign(&mut dx, &dskips.pop().expect("one for every merge"));
            }
            level.blocks_vjp(backend, &mut dx, condition, saved, grads.as_deref_mut());
            if let (Some(sample), Some((y, rstd))) = (&level.entry, &saved.norm) {
                let dh = backend.channel_norm_vjp(y, rstd, None, &dx);
                if let Some(grads) = grads.as_deref_mut() {
                    sample.vjp_params(backend, &saved.entry[0], &dh, grads);
                }
                dx = backend.conv2d_vjp(&sample.k, sample.input(dh.shape()), &dh);
            }
        }

        if let Some(grads) = grads {
            self.stem.vjp_params(backend, &ends().0, &dx, grads);
        }
        dx = backend.conv2d_vjp(&self.stem.k, self.stem.input(dx.shape()), &dx);
        if patch > 1 { backend.patch_unfold(&dx, patch) } else { dx }
    }
}

impl<B: Ops> LevelSaved<B> {
    fn keep_norm(&mut self, keep: Keep, y: &Arc<B::Tensor>, rstd: B::Tensor) {
        self.norm = (keep != Keep::Nothing).then(|| (y.clone(), rstd));
    }
    fn keep_entry<const K: usize>(&mut self, keep: Keep, inputs: [&Arc<B::Tensor>; K]) {
        if keep == Keep::All {
            self.entry = inputs.map(Arc::clone).into();
        }
    }
}

impl<B: Ops> Level<B> {
    fn blocks_forward(
        &self,
        backend: &B,
        x: &mut Arc<B::Tensor>,
        condition: &UNetCondition<B>,
        pass: Pass<'_>,
        saved: &mut LevelSaved<B>,
        probe: &mut impl FnMut(&str, &B::Tensor),
    ) {
        for (number, block) in (self.first..).zip(&self.blocks) {
            let pass = Pass { dropout: pass.dropout.map(|masks| masks.layer(number)), ..pass };
            let (y, kept) = block.forward(backend, &condition.modulations[number], x, pass);
            probe(&block.name, &y);
            *x = Arc::new(y);
            saved.blocks.extend(kept);
        }
    }

    fn blocks_vjp(
        &self,
        backend: &B,
        dx: &mut B::Tensor,
        condition: &UNetCondition<B>,
        saved: &LevelSaved<B>,
        mut grads: Option<&mut Grads<B>>,
    ) {
        for (j, (block, saved)) in self.blocks.iter().zip(&saved.blocks).enumerate().rev() {
            let index = self.first + j;
            let grads = grads.as_deref_mut().map(|grads| {
                let saved = condition.saved.as_ref().expect("the condition kept all");
                BlockGrads { grads, embedding: &saved.embedding, modulation: &saved.modulations[index] }
            });
            *dx = block.vjp(backend, &condition.modulations[index], saved, dx, grads);
        }
    }
}

impl<B: Ops> Network<B> for UNet<B> {
    type Condition = UNetCondition<B>;
    type Saved = UNetSaved<B>;

    fn condition(&self, backend: &B, log_sigma: &[f64], keep: Keep) -> Self::Condition {
        let embedding = backend.noise_embedding_forward(log_sigma, self.config.emb);
        let blocks = self.down.iter().chain(&self.up).flat_map(|level| &level.blocks);
        let (modulations, saved): (Vec<_>, Vec<_>) =
            blocks.map(|block| block.modulation.forward(backend, &embedding, keep)).unzip();
        let saved = (keep == Keep::All)
            .then(|| ConditionSaved { embedding, modulations: saved.into_iter().flatten().collect() });
        UNetCondition { modulations, saved }
    }
    fn condition_len(&self) -> usize {
        let levels = self.down.iter().chain(&self.up).zip(self.config.channels.iter().cycle());
        levels.map(|(level, c)| level.blocks.len() * (3 + 2) * c).sum() // abc and gates
    }
    fn pick_condition(&self, backend: &B, all: &Self::Condition, i: usize) -> Self::Condition {
        let arrays: Vec<_> = all.modulations.iter().flat_map(|m| [&m.abc, &m.gates]).collect();
        let mut rows = backend.pick_rows(&arrays, i).into_iter();
        let modulations = std::iter::from_fn(|| Some(Modulation { abc: rows.next()?, gates: rows.next()? }));
        UNetCondition { modulations: modulations.collect(), saved: None }
    }
    fn forward_dropout(
        &self,
        backend: &B,
        x: &B::Tensor,
        condition: &Self::Condition,
        keep: Keep,
        dropout: Option<Masks<'_>>,
    ) -> (B::Tensor, Option<Self::Saved>) {
        self.run(backend, x, condition, Pass { keep, dropout }, |_, _| ())
    }
    fn vjp(&self, backend: &B, condition: &Self::Condition, saved: &Self::Saved, dy: &B::Tensor) -> B::Tensor {
        self.pull_back(backend, condition, saved, dy, None)
    }
    fn vjp_params(
        &self,
        backend: &B,
        condition: &Self::Condition,
        saved: &Self::Saved,
        dy: &B::Tensor,
        grads: &mut Grads<B>,
    ) -> B::Tensor {
        self.pull_back(backend, condition, saved, dy, Some(grads))
    }
    fn locate_nonfinite(&self, backend: &B, x: &B::Tensor, condition: &Self::Condition) -> Result<Option<NonFinite>> {
        first_nonfinite(backend, x, |probe| {
            self.run(backend, x, condition, Pass { keep: Keep::Nothing, dropout: None }, probe);
        })
    }
}
