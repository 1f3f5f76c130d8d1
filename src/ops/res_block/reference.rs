//! res_block: the definition is the composition of the fine ops.

use super::ResBlock;
use crate::backend::reference::Reference;

impl ResBlock for Reference {}
