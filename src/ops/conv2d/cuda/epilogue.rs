//! What a convolution or linear layer does with its sums before they are stored: `kernels/epilogue.cuh`.

use super::tile::Tile;
use crate::backend::cuda::{CudaTensor, Dtype};
use crate::backend::{Array, Shape};
use bytemuck::NoUninit;

/// What is stored for the sum v. Arrays are of the output's extents and type, a bias is (C), f32.
#[derive(Clone, Copy)]
pub(crate) enum Epilogue<'a> {
    /// v + b; v without a bias.
    Bias(Option<&'a CudaTensor>),
    /// silu(v + b); writes the derivative where wanted.
    Silu {
        /// b
        bias: &'a CudaTensor,
        /// silu'(v + b)
        derivative: Option<&'a CudaTensor>,
    },
    /// v times this.
    Times(&'a CudaTensor),
    /// r x + c r (v + b); writes the branch where wanted.
    Residual {
        /// b; none is 0.
        bias: Option<&'a CudaTensor>,
        /// x
        x: &'a CudaTensor,
        /// (R, 1, 1, 2 C): r, then c r.
        gates: &'a CudaTensor,
        /// v + b
        branch: Option<&'a CudaTensor>,
    },
}

/// As in the kernel.
#[derive(Clone, Copy, NoUninit)]
#[repr(C)]
pub(crate) struct EpilogueArgs {
    bias: u64,
    x: u64,
    gates: u64,
    extra: u64,
    rows: i32,
    pixels: i32,
}

/// The kernel's name.
macro_rules! tiles {
    (@wgmma, $name:literal, $tile:expr, $dtype:expr) => {
        match $tile {
            Tile::WgmmaLarge => concat!("conv2d_", $name, "_wgmma_256x128_bf16"),
            Tile::WgmmaMedium => concat!("conv2d_", $name, "_wgmma_128x128_bf16"),
            _ => tiles!($name, $tile, $dtype),
        }
    };
    ($name:literal, $tile:expr, $dtype:expr) => {
        match ($tile, $dtype) {
            (Tile::Large, Dtype::Bf16) => concat!("conv2d_", $name, "_128x128_bf16"),
            (Tile::Medium, Dtype::Bf16) => concat!("conv2d_", $name, "_128x64_bf16"),
            (Tile::Small, Dtype::Bf16) => concat!("conv2d_", $name, "_64x32_bf16"),
            (Tile::Large, Dtype::F32) => concat!("conv2d_", $name, "_128x128_f32"),
            (Tile::Medium, Dtype::F32) => concat!("conv2d_", $name, "_128x64_f32"),
            (Tile::Small, Dtype::F32) => concat!("conv2d_", $name, "_64x32_f32"),
            _ => unreachable!("wgmma is for whole chunks of bf16"),
        }
    };
}

impl Epilogue<'_> {
    /// The kernel for `inputs` arrays, whose channels are whole 16-byte chunks, or `gathered` one by one.
    pub(super) fn kernel(&self, tile: Tile, inputs: usize, gathered: bool, dtype: Dtype) -> &'static str {
        match (self, inputs, gathered) {
            (Self::Bias(_), 1, false) => tiles!(@wgmma, "bias", tile, dtype),
            (Self::Silu { .. }, 1, false) => tiles!(@wgmma, "silu", tile, dtype),
            (Self::Times(_), 1, false) => tiles!(@wgmma, "times", tile, dtype),
            (Self::Residual { .. }, 1, false) => tiles!(@wgmma, "residual", tile, dtype),
            (Self::Bias(_), 2, false) => tiles!(@wgmma, "merged_bias", tile, dtype),
            (Self::Bias(_), 1, true) => tiles!("gathered_bias", tile, dtype),
            (Self::Silu { .. }, 1, true) => tiles!("gathered_silu", tile, dtype),
            (Self::Times(_), 1, true) => tiles!("gathered_times", tile, dtype),
            (Self::Residual { .. }, 1, true) => tiles!("gathered_residual", tile, dtype),
            _ => unreachable!("only a bias follows {inputs} arrays"),
        }
    }
    /// Its arguments, for an output of extents `y`.
    pub fn args(&self, y: Shape) -> EpilogueArgs {
        let address = |x: Option<&CudaTensor>| x.map_or(0, CudaTensor::address);
        let mut args = EpilogueArgs { bias: 0, x: 0, gates: 0, extra: 0, rows: 1, pixels: y.pixels() as i32 };
        match *self {
            Self::Bias(bias) => args.bias = address(bias),
            Self::Silu { bias, derivative } => (args.bias, args.extra) = (bias.address(), address(derivative)),
            Self::Times(x) => args.x = x.address(),
            Self::Residual { bias, x, gates, branch } => {
                assert_eq!((x.shape(), gates.shape().c), (y, 2 * y.c), "gated residual");
                (args.bias, args.x) = (address(bias), x.address());
                (args.gates, args.extra) = (gates.address(), address(branch));
                args.rows = gates.shape().n as i32;
            }
        }
        args
    }
}
