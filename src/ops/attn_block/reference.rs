//! attn_block: the definition is the composition of the fine ops.

use super::AttnBlock;
use crate::backend::reference::Reference;

impl AttnBlock for Reference {}
