//! mlp on the CPU: a layer of a batch fits the cache, so the composition of the fine ops is it.

use super::Mlp;
use crate::backend::cpu::Cpu;

impl Mlp for Cpu {}
