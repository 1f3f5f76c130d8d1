//! attn_block: the fast CPU form.
