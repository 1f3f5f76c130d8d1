//! Launches of `kernels/attention.cu` (tensor cores) and `kernels/attention_ffma.cu`.

use super::Attention;
use crate::backend::cuda::{Args, Cuda, CudaTensor, Dtype, Launch};
use crate::backend::{Array, Backend, Keep, Shape};

/// Channels of the widest head that the kernels hold.
pub(crate) const WIDEST: usize = 128;

/// What the VJP needs.
pub struct CudaAttention {
    qkv: CudaTensor, // (N, H, W, 3 C)
    o: CudaTensor,   // (N, H, W, C)
    lse: CudaTensor, // (N, heads, T rounded up to even, 1): log2 Σ_keys e^s, f32
}

/// The kernels of one kind and one width D of head, with the shared memory that each asks for.
struct Kernels {
    names: [&'static str; 3], // forward, dq, (dk, dv)
    rows: usize,              // tokens of a block
    shared: [usize; 3],
}

macro_rules! names {
    ($kind:literal) => {
        [concat!("attention_forward_", $kind), concat!("attention_vjp_q_", $kind), concat!("attention_vjp_kv_", $kind)]
    };
}

impl Kernels {
    /// For heads of `d` channels.
    fn of(d: usize, dtype: Dtype) -> Self {
        assert!(d <= WIDEST, "heads of {d} channels; the kernels hold {WIDEST}");
        if dtype == Dtype::Bf16 && d.is_multiple_of(8) {
            return match d {
                ..=16 => Self::tensor_cores(names!("bf16_d16"), 16),
                17..=32 => Self::tensor_cores(names!("bf16_d32"), 32),
                33..=64 => Self::tensor_cores(names!("bf16_d64"), 64),
                _ => Self::tensor_cores(names!("bf16_d128"), 128),
            };
        }
        match (d, dtype) {
            (..=64, Dtype::F32) => Self::ffma(names!("ffma_f32_d64"), 64),
            (..=64, Dtype::Bf16) => Self::ffma(names!("ffma_bf16_d64"), 64),
            (_, Dtype::F32) => Self::ffma(names!("ffma_f32_d128"), 128),
            (_, Dtype::Bf16) => Self::ffma(names!("ffma_bf16_d128"), 128),
        }
    }
    /// Tiles of bf16: one or two of the block's rows, then two buffers of two of the other side's, 64 or 32 rows each.
    fn tensor_cores(names: [&'static str; 3], width: usize) -> Self {
        let row = 2 * width;
        let statistics = 2 * 32 * size_of::<[f32; 2]>();
        Self {
            names,
            rows: 128,
            shared: [(128 + 4 * 64) * row, (256 + 4 * 32) * row, (256 + 4 * 32) * row + statistics],
        }
    }
    /// Tiles of f32, padded: as above with one buffer of 32 rows, and one or two tiles of 64 x 32 scores.
    fn ffma(names: [&'static str; 3], width: usize) -> Self {
        let (row, scores) = (4 * (width + 4), 4 * 64 * (32 + 4));
        Self { names, rows: 64, shared: [128 * row + scores, 192 * row + scores, 192 * row + 2 * scores] }
    }
    /// A launch of one of them on `tokens` (N, H, W, ..).
    fn launch(&self, which: usize, tokens: Shape, heads: usize, d: usize, args: Args) -> Launch {
        let scale = 1.0 / (d as f32).sqrt();
        let args = args.arg(tokens.pixels() as i32).arg(d as i32).arg(scale);
        let mut launch = Launch::blocks(self.names[which], tokens.n * tokens.pixels().div_ceil(self.rows), 256, args);
        launch.grid[1] = heads as u32;
        launch.shared = self.shared[which] as u32;
        launch
    }
}

impl Attention for Cuda {
    type AttentionSaved = CudaAttention;

    fn attention_forward(&self, qkv: CudaTensor, heads: usize, keep: Keep) -> (CudaTensor, Option<CudaAttention>) {
        let s = qkv.shape();
        let d = s.c / 3 / heads;
        assert_eq!(3 * heads * d, s.c, "queries, keys and values of {heads} heads");
        let o = self.alloc_as(s.with_c(heads * d), qkv.dtype());
        let statistics = Shape::new(s.n, heads, s.pixels().next_multiple_of(2), 1);
        let lse = (keep != Keep::Nothing).then(|| self.alloc(statistics));
        let args = Args::new().ptr(&qkv).ptr(&o).ptr_or_null(lse.as_ref());
        self.launch(Kernels::of(d, qkv.dtype()).launch(0, s, heads, d, args));
        let saved = lse.map(|lse| CudaAttention { qkv, o: o.share(), lse });
        (o, saved)
    }

    fn attention_vjp(&self, saved: &CudaAttention, d_o: &CudaTensor) -> CudaTensor {
        let CudaAttention { qkv, o, lse } = saved;
        let (s, heads) = (qkv.shape(), lse.shape().h);
        assert_eq!((d_o.shape(), d_o.dtype()), (o.shape(), o.dtype()), "do of attention");
        let (dqkv, statistics) = (self.alloc_like(qkv), self.alloc(lse.shape().with_c(2)));
        let d = o.shape().c / heads;
        let kernels = Kernels::of(d, qkv.dtype());
        let args = Args::new().ptr(qkv).ptr(o).ptr(d_o).ptr(lse).ptr(&dqkv).ptr(&statistics);
        self.launch(kernels.launch(1, s, heads, d, args));
        let args = Args::new().ptr(qkv).ptr(d_o).ptr(&statistics).ptr(&dqkv);
        self.launch(kernels.launch(2, s, heads, d, args));
        dqkv
    }
}
