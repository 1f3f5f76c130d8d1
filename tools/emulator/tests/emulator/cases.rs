//! Whole kernels against sums in f64, at sizes that leave tails. A case fails with the launch's error or the worst element.

use super::device::{Argument, Buffer, Random, from_bf16, launch};
use diem_emulator::{Emulator, Tensor};

/// A kernel's test.
pub type Case = fn(&Emulator) -> Result<(), String>;

/// By the kernel file that they are about.
pub const ALL: &[(&str, Case)] = &[
    ("gemm_bf16", gemm),
    ("layer_norm", layer_norm),
    ("dot", dot),
    ("conv3x3", conv3x3),
    ("hopper_gemm", hopper_nt),
    ("hopper_gemm", hopper_nn),
    ("hopper_gemm", hopper_stores),
];

/// Every element within `bound(i)` of what is wanted; NaN is not.
fn compare(found: &[f32], wanted: impl Fn(usize) -> (f64, f64)) -> Result<(), String> {
    for (i, &x) in found.iter().enumerate() {
        let (want, bound) = wanted(i);
        let error = (f64::from(x) - want).abs();
        if error.is_nan() || error > bound {
            return Err(format!("element {i} is {x}, not {want} within {bound:.1e}"));
        }
    }
    Ok(())
}

/// C[m,n] = A[m,k] B; `b` gives the index of B's element (p, j). Bound: k roundings of a sum of |products|.
fn compare_gemm(
    c: &[f32],
    (m, n, k): (usize, usize, usize),
    a: &[f32],
    b: &[f32],
    index_b: impl Fn(usize, usize) -> usize,
) -> Result<(), String> {
    assert_eq!(c.len(), m * n);
    compare(c, |i| {
        let products = (0..k).map(|p| f64::from(a[i / n * k + p]) * f64::from(b[index_b(p, i % n)]));
        let (sum, absolute) = products.fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
        (sum, absolute * k as f64 * f64::from(f32::EPSILON))
    })
}

fn gemm(emulator: &Emulator) -> Result<(), String> {
    let (m, n, k) = (150, 136, 72);
    let mut random = Random(1);
    let ((a_bits, a), (b_bits, b)) = (random.bf16(m * k), random.bf16(k * n));
    let (da, db) = (Buffer::of(emulator, &a_bits), Buffer::of(emulator, &b_bits));
    let c = Buffer::<f32>::new(emulator, m * n);
    let grid = [(n as u32).div_ceil(128), (m as u32).div_ceil(128), 1];
    launch(emulator, "gemm_bf16", (grid, [256, 1, 1], 0), &[&da, &db, &c, &(m as i32), &(n as i32), &(k as i32)])?;
    compare_gemm(&c.read(), (m, n, k), &a, &b, |p, j| p * n + j)
}

fn layer_norm(emulator: &Emulator) -> Result<(), String> {
    let (rows, d, eps) = (37, 200, 1e-5f32);
    let mut random = Random(2);
    let x: Vec<f32> = random.floats(rows * d).iter().map(|x| 3.0 * x + 1.0).collect();
    let (w, b) = (random.floats(d), random.floats(d));
    let (dx, dw, db) = (Buffer::of(emulator, &x), Buffer::of(emulator, &w), Buffer::of(emulator, &b));
    let y = Buffer::<u16>::new(emulator, rows * d);
    let args: &[&dyn Argument] = &[&dx, &dw, &db, &y, &(rows as i32), &(d as i32), &eps];
    launch(emulator, "layer_norm_f32", ([(rows as u32).div_ceil(4), 1, 1], [128, 1, 1], 0), args)?;
    let y: Vec<f32> = y.read().into_iter().map(from_bf16).collect();
    compare(&y, |i| {
        let row = &x[i / d * d..][..d];
        let mean = row.iter().map(|&v| f64::from(v)).sum::<f64>() / d as f64;
        let variance = row.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / d as f64;
        let normal = (f64::from(x[i]) - mean) / (variance + f64::from(eps)).sqrt();
        let want = normal * f64::from(w[i % d]) + f64::from(b[i % d]);
        (want, want.abs() / 256.0 + 1e-5) // half a unit of bf16's 8 bits, and f32 rounding before it
    })
}

fn dot(emulator: &Emulator) -> Result<(), String> {
    let n = 5_000;
    let mut random = Random(3);
    let (a, b) = (random.floats(n), random.floats(n));
    let (da, db) = (Buffer::of(emulator, &a), Buffer::of(emulator, &b));
    let out = Buffer::of(emulator, &[0f32]);
    launch(emulator, "dot_f32", ([3, 1, 1], [1024, 1, 1], 128), &[&da, &db, &out, &(n as i32)])?;
    let products = a.iter().zip(&b).map(|(&x, &y)| f64::from(x) * f64::from(y));
    let (sum, absolute) = products.fold((0.0, 0.0), |(s, t), x| (s + x, t + x.abs()));
    compare(&out.read(), |_| (sum, absolute * 20.0 * f64::from(f32::EPSILON))) // a tree about 20 sums deep
}

fn conv3x3(emulator: &Emulator) -> Result<(), String> {
    let (c, h, w, k) = (3, 21, 37, 3);
    let mut random = Random(4);
    let (x, weight) = (random.floats(c * h * w), random.floats(k * c * 9));
    let (dx, dw) = (Buffer::of(emulator, &x), Buffer::of(emulator, &weight));
    let y = Buffer::<f32>::new(emulator, k * h * w);
    let grid = [(w as u32).div_ceil(16), (h as u32).div_ceil(16), k as u32];
    let args: &[&dyn Argument] = &[&dx, &dw, &y, &(c as i32), &(h as i32), &(w as i32)];
    launch(emulator, "conv3x3_f32", (grid, [16, 16, 1], 0), args)?;
    compare(&y.read(), |o| {
        let (ko, i, j) = (o / (h * w), o / w % h, o % w);
        let mut sum = 0.0;
        for (ci, r, q) in (0..c * 9).map(|t| (t / 9, t / 3 % 3, t % 3)) {
            if let (Some(y), Some(x0)) = ((i + r).checked_sub(1), (j + q).checked_sub(1))
                && y < h
                && x0 < w
            {
                sum += f64::from(x[(ci * h + y) * w + x0]) * f64::from(weight[(ko * c + ci) * 9 + r * 3 + q]);
            }
        }
        (sum, 27.0 * 27.0 * f64::from(f32::EPSILON)) // 27 terms of at most 1
    })
}

/// C = A op(B) through TMA; `transposed`: B is [n,k].
fn hopper_tma(emulator: &Emulator, kernel: &str, transposed: bool) -> Result<(), String> {
    let (m, n, k) = (100, 72, 328);
    let mut random = Random(5);
    let ((a_bits, a), (b_bits, b)) = (random.bf16(m * k), random.bf16(n * k));
    let (da, db) = (Buffer::of(emulator, &a_bits), Buffer::of(emulator, &b_bits));
    let c = Buffer::<f32>::new(emulator, m * n);
    let map = |base, columns: usize, rows: usize| {
        let extent = [columns as u64, rows as u64, 1, 1];
        let stride = [2, columns as u64 * 2, 0, 0];
        let (box_extent, step) = ([64, 64, 1, 1], [1; 4]);
        emulator.tensor_map(&Tensor { base, extent, stride, box_extent, step, element: 2, rank: 2, swizzle: 128 })
    };
    let map_a = map(da.address, k, m)?;
    let map_b = if transposed { map(db.address, k, n)? } else { map(db.address, n, k)? };
    let grid = [(n as u32).div_ceil(64), (m as u32).div_ceil(64), 1];
    let args: &[&dyn Argument] = &[&map_a, &map_b, &c, &(m as i32), &(n as i32), &(k as i32)];
    launch(emulator, kernel, (grid, [160, 1, 1], 3 * 16384), args)?;
    compare_gemm(&c.read(), (m, n, k), &a, &b, |p, j| if transposed { j * k + p } else { p * n + j })
}

fn hopper_nt(emulator: &Emulator) -> Result<(), String> {
    hopper_tma(emulator, "hopper_gemm_nt", true)
}

fn hopper_nn(emulator: &Emulator) -> Result<(), String> {
    hopper_tma(emulator, "hopper_gemm_nn", false)
}

fn hopper_stores(emulator: &Emulator) -> Result<(), String> {
    let (m, n, k) = (64, 128, 192);
    let mut random = Random(6);
    let ((a_bits, a), (b_bits, b)) = (random.bf16(m * k), random.bf16(n * k));
    let (da, db) = (Buffer::of(emulator, &a_bits), Buffer::of(emulator, &b_bits));
    let c = Buffer::<f32>::new(emulator, m * n);
    let args: &[&dyn Argument] = &[&da, &db, &c, &(m as i32), &(n as i32), &(k as i32)];
    launch(emulator, "hopper_gemm_stores", ([n as u32 / 64, m as u32 / 64, 1], [128, 1, 1], 16384), args)?;
    compare_gemm(&c.read(), (m, n, k), &a, &b, |p, j| j * k + p)
}
