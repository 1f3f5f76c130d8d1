//! attn_block: the definition is the composition of the fine ops.
