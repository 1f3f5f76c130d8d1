//! mlp: the definition is the composition of the fine ops.

use super::Mlp;
use crate::backend::reference::Reference;

impl Mlp for Reference {}
