//! The CUDA kernels against the f64 reference: under every schedule of the emulated device, in the plain and the race build, or
//! with `DIEM_TEST_DEVICE=cuda` on a GPU.
#![cfg(feature = "emulator")]

mod attention;
mod attn_block;
mod blocks;
mod channel_norm;
mod conv2d;
mod elementwise;
mod harness;
mod memory;
mod mlp;
mod network;
mod record;
mod sampling;
mod sanitizers;
mod seeded_bugs;
mod trainer;
mod training;
mod unet;
mod vector;
mod wgmma;
