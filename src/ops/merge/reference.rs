//! merge: the definition is the composition of the fine ops.

use super::Merge;
use crate::backend::reference::Reference;

impl Merge for Reference {}
