//! res_block: the fast CPU form.
