//! attn_block: the composition of the fine ops.

use super::AttnBlock;
use crate::backend::cpu::Cpu;

impl AttnBlock for Cpu {}
