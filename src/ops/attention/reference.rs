//! attention: the f64 definition.

use super::Attention;
use crate::backend::reference::Reference;
use crate::backend::{Array, Backend, Keep, Shape};

/// What the VJP needs.
pub struct ReferenceAttention {
    qkv: <Reference as Backend>::Tensor, // (N, H, W, 3 C)
    p: <Reference as Backend>::Tensor,   // (N, heads, T, T)
}

/// Where query, key or value (`which` = 0, 1, 2) of `token` and `head` begins in a row of qkv.
fn offset(c: usize, d: usize, which: usize, token: usize, head: usize) -> usize {
    (3 * token + which) * c + head * d
}

impl Attention for Reference {
    type AttentionSaved = ReferenceAttention;

    fn attention_forward(
        &self,
        qkv: Self::Tensor,
        heads: usize,
        keep: Keep,
    ) -> (Self::Tensor, Option<ReferenceAttention>) {
        let (s, c) = (qkv.shape(), qkv.shape().c / 3);
        let (t, d) = (s.pixels(), c / heads);
        assert_eq!(3 * heads * d, s.c, "queries, keys and values of {heads} heads");
        let mut o = self.zeros(s.with_c(c));
        let mut p = self.alloc(Shape::new(s.n, heads, t, t));
        for n in 0..s.n {
            let (row, o) = (qkv.row(n), o.row_mut(n));
            for (i, p) in p.row_mut(n).chunks_exact_mut(t).enumerate() {
                let (head, query) = (i / t, i % t);
                let q = offset(c, d, 0, query, head);
                for (key, p) in p.iter_mut().enumerate() {
                    let k = offset(c, d, 1, key, head);
                    *p = (0..d).map(|j| row[q + j] * row[k + j]).sum::<f64>() / (d as f64).sqrt();
                }
                let max = p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                p.iter_mut().for_each(|p| *p = (*p - max).exp());
                let sum: f64 = p.iter().sum();
                for (key, p) in p.iter_mut().enumerate() {
                    *p /= sum;
                    let v = offset(c, d, 2, key, head);
                    for j in 0..d {
                        o[query * c + head * d + j] += *p * row[v + j];
                    }
                }
            }
        }
        (o, (keep != Keep::Nothing).then_some(ReferenceAttention { qkv, p }))
    }
    fn attention_vjp(&self, saved: &ReferenceAttention, d_o: &Self::Tensor) -> Self::Tensor {
        let (s, heads) = (saved.qkv.shape(), saved.p.shape().h);
        let (t, c) = (s.pixels(), s.c / 3);
        let d = c / heads;
        let mut dqkv = self.zeros(s);
        for n in 0..s.n {
            let (row, d_o, drow) = (saved.qkv.row(n), d_o.row(n), dqkv.row_mut(n));
            for (i, p) in saved.p.row(n).chunks_exact(t).enumerate() {
                let (head, query) = (i / t, i % t);
                let q = offset(c, d, 0, query, head);
                let d_o = &d_o[query * c + head * d..][..d];
                let mut dp = vec![0.0; t];
                for key in 0..t {
                    let v = offset(c, d, 2, key, head);
                    for j in 0..d {
                        dp[key] += d_o[j] * row[v + j];
                        drow[v + j] += p[key] * d_o[j];
                    }
                }
                let p_dp: f64 = p.iter().zip(&dp).map(|(p, dp)| p * dp).sum();
                for key in 0..t {
                    let k = offset(c, d, 1, key, head);
                    let ds = p[key] * (dp[key] - p_dp) / (d as f64).sqrt();
                    for j in 0..d {
                        drow[q + j] += ds * row[k + j];
                        drow[k + j] += ds * row[q + j];
                    }
                }
            }
        }
        dqkv
    }
}
