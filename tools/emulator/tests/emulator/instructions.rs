//! Each instruction against its definition: fragment layouts against CuTe's published layout algebra, shuffles against the
//! pseudo-code of the PTX ISA, conversions against IEEE 754.

use diem_emulator::{Config, Tensor};

use super::device::{Argument, Buffer, Random, from_bf16, launch};

const ONE_WARP: ([u32; 3], [u32; 3], u32) = ([1, 1, 1], [32, 1, 1], 0);

/// `SM80_16x8x16` of CuTe. A: ((4,8),(2,2,2)):((32,1),(16,8,128)) over m + 16 k; B: ((4,8),(2,2)):((16,1),(8,64)) over n + 8 k;
/// C: ((4,8),(2,2)):((32,1),(16,8)) over m + 16 n.
fn layout_a(lane: usize, v: usize) -> usize {
    lane % 4 * 32 + lane / 4 + v % 2 * 16 + v / 2 % 2 * 8 + v / 4 * 128
}
fn layout_b(lane: usize, v: usize) -> usize {
    lane % 4 * 16 + lane / 4 + v % 2 * 8 + v / 2 * 64
}
fn layout_c(lane: usize, v: usize) -> usize {
    lane % 4 * 32 + lane / 4 + v % 2 * 16 + v / 2 * 8
}

/// Two 16-bit values in one register, the first in the low half.
fn pairs(bits: impl Iterator<Item = u16>) -> Vec<u32> {
    let all: Vec<u16> = bits.collect();
    all.chunks(2).map(|p| u32::from(p[0]) | u32::from(p[1]) << 16).collect()
}

#[test]
fn mma_fragments_are_those_of_the_isa() {
    for config in Config::all() {
        let emulator = super::device::emulator(config);
        let mut random = Random(7);
        let ((a_bits, a), (b_bits, b)) = (random.bf16(16 * 16), random.bf16(16 * 8));
        let c = random.floats(16 * 8);
        let lanes = |values: usize| (0..32 * values).map(move |i| (i / values, i % values));
        let fragments_a = Buffer::of(&emulator, &pairs(lanes(8).map(|(lane, v)| a_bits[layout_a(lane, v)])));
        let fragments_b = Buffer::of(&emulator, &pairs(lanes(4).map(|(lane, v)| b_bits[layout_b(lane, v)])));
        let start: Vec<f32> = lanes(4).map(|(lane, v)| c[layout_c(lane, v)]).collect();
        let d = Buffer::of(&emulator, &start);
        launch(&emulator, "mma_fragments", ONE_WARP, &[&fragments_a, &fragments_b, &d]).unwrap();
        for ((lane, v), found) in lanes(4).zip(d.read()) {
            let (m, n) = (layout_c(lane, v) % 16, layout_c(lane, v) / 16);
            let product: f64 = (0..16).map(|k| f64::from(a[m + 16 * k]) * f64::from(b[n + 8 * k])).sum();
            let want = f64::from(c[m + 16 * n]) + product;
            assert!((f64::from(found) - want).abs() < 1e-5, "{config:?} ({m},{n}): {found}, {want}"); // 17 terms below 1
        }
    }
}

#[test]
fn ldmatrix_gives_each_lane_its_pair() {
    for config in Config::all() {
        let emulator = super::device::emulator(config);
        let mut random = Random(8);
        let x: Vec<u16> = (0..256).map(|_| random.bits() as u16).collect();
        let (input, out) = (Buffer::of(&emulator, &x), Buffer::<u32>::new(&emulator, 256));
        launch(&emulator, "ldmatrix_fragments", ONE_WARP, &[&input, &out]).unwrap();
        let at = |matrix: usize, row: usize, column: usize| x[matrix * 64 + row * 8 + column];
        let lanes = || (0..128).map(|i| (i / 4, i % 4));
        let plain = lanes().flat_map(|(l, j)| [0, 1].map(|e| at(j, l / 4, l % 4 * 2 + e)));
        let transposed = lanes().flat_map(|(l, j)| [0, 1].map(|e| at(j, l % 4 * 2 + e, l / 4)));
        assert_eq!(out.read(), pairs(plain.chain(transposed)), "{config:?}");
    }
}

/// Source lane of `shfl.sync`, as the PTX ISA writes it; CUDA passes c = (32 - width) << 8 | (0 for up, 31 else).
fn shuffle_source(kind: usize, lane: i32, b: i32, width: i32) -> i32 {
    let c = ((32 - width) << 8) | if kind == 1 { 0 } else { 31 };
    let (segment_mask, c) = (c >> 8 & 31, c & 31);
    let max_lane = (lane & segment_mask) | (c & !segment_mask);
    let (source, inside) = match kind {
        0 => {
            let j = (lane & segment_mask) | (b & !segment_mask);
            (j, j <= max_lane)
        }
        1 => (lane - b, lane - b >= max_lane),
        2 => (lane + b, lane + b <= max_lane),
        _ => (lane ^ b, lane ^ b <= max_lane),
    };
    if inside { source } else { lane }
}

#[test]
fn shuffles_follow_the_isa() {
    for config in Config::all() {
        let emulator = super::device::emulator(config);
        let out = Buffer::<i32>::new(&emulator, 6 * 32 * 4 * 32);
        launch(&emulator, "shuffles", ONE_WARP, &[&out]).unwrap();
        for (i, found) in out.read().into_iter().enumerate() {
            let (lane, kind, b, width) = (i % 32, i / 32 % 4, i / 128 % 32, 1 << (i / 4096));
            let want = shuffle_source(kind, lane as i32, b as i32, width) * 3;
            assert_eq!(found, want, "{config:?} kind {kind}, width {width}, argument {b}, lane {lane}");
        }
    }
}

#[test]
fn barriers_votes_and_partial_masks() {
    for config in Config::all() {
        let emulator = super::device::emulator(config);
        let out = Buffer::<i32>::new(&emulator, 1024);
        launch(&emulator, "barriers", ([1, 1, 1], [1024, 1, 1], 0), &[&out]).unwrap();
        for (t, found) in (0i32..).zip(out.read()) {
            let (lane, warp, half) = (t % 32, t / 32 * 32, t / 512);
            let shuffled = if lane < 12 { warp + (lane ^ 1) } else { 3 * warp + 12 + 13 + 14 };
            let mirrored = half * 512 + 511 - t % 512 + half + 1;
            let votes = 0b0100_1001; // lanes 0, 3, 6 of the first eight
            assert_eq!(found, shuffled + mirrored + votes, "{config:?} thread {t}");
        }
    }
}

#[test]
fn async_copies_fill_with_zeros() {
    for config in Config::all() {
        let emulator = super::device::emulator(config);
        let mut random = Random(9);
        let x: Vec<[u32; 4]> = (0..96).map(|_| std::array::from_fn(|_| random.bits() as u32)).collect();
        let (input, out) = (Buffer::of(&emulator, &x), Buffer::<[u32; 4]>::new(&emulator, 96));
        launch(&emulator, "async_copies", ONE_WARP, &[&input, &out]).unwrap();
        let want: Vec<[u32; 4]> = x
            .iter()
            .enumerate()
            .map(|(i, &v)| match i / 32 {
                0 => v,
                1 => [v[0], v[1] & 0xff, 0, 0], // five bytes
                _ => [0; 4],
            })
            .collect();
        assert_eq!(out.read(), want, "{config:?}");
    }
}

/// Every second row, from a corner outside on; the fourth dimension has a second half that the tensor has not.
#[test]
fn tma_brings_a_box_with_zeros_outside() {
    const EXTENT: [i64; 4] = [8, 5, 3, 2];
    let step = [1, 2, 1, 1];
    for (config, from) in Config::all().flat_map(|config| [[-1, -1, 2, 0], [6, 1, 0, 1]].map(|from| (config, from))) {
        let emulator = super::device::emulator(config);
        let x: Vec<u32> = (1..=240).collect();
        let (input, out) = (Buffer::of(&emulator, &x), Buffer::<u32>::new(&emulator, 48));
        let map = emulator.tensor_map(&Tensor {
            base: input.address,
            extent: EXTENT.map(|e| e as u64),
            stride: [4, 32, 160, 480],
            box_extent: [4, 3, 2, 2],
            step,
            element: 4,
            rank: 4,
            swizzle: 0,
        });
        let [x0, y0, z0, w0] = from;
        let args: &[&dyn Argument] = &[&map.unwrap(), &x0, &y0, &z0, &w0, &out];
        launch(&emulator, "tma_box", ([1, 1, 1], [32, 1, 1], 192), args).unwrap();
        let want = (0..48).map(|i| {
            let place = [i % 4, i / 4 % 3, i / 12 % 2, i / 24];
            let at: [i64; 4] = std::array::from_fn(|d| i64::from(from[d]) + place[d] * i64::from(step[d]));
            let inside = (0..4).all(|d| (0..EXTENT[d]).contains(&at[d]));
            if inside { x[(at[0] + 8 * (at[1] + 5 * (at[2] + 3 * at[3]))) as usize] } else { 0 }
        });
        assert_eq!(out.read(), want.collect::<Vec<_>>(), "{config:?} from {from:?}");
    }
}

/// The nearest 16-bit float of `mantissa` explicit bits, ties to even, found by search over the bit patterns.
fn nearest(x: f32, value: impl Fn(u16) -> f32, infinity: u16) -> u16 {
    let (mut low, mut high) = (0u16, infinity); // value(low) <= |x| < value(high) or high = infinity
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if value(middle) <= x.abs() { low = middle } else { high = middle }
    }
    let sign = if x.is_sign_negative() { 0x8000 } else { 0 };
    // Infinity stands one step above the largest number.
    let top = f64::from(value(infinity - 1)) * 2.0 - f64::from(value(infinity - 2));
    let above = if high == infinity { top } else { f64::from(value(high)) };
    let (below, x) = (f64::from(value(low)), f64::from(x.abs()));
    let (down, up) = (x - below, above - x);
    sign | if up < down || (up == down && high % 2 == 0) { high } else { low }
}

fn from_f16(bits: u16) -> f32 {
    let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
    let magnitude = match exponent {
        31 if mantissa == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        0 => mantissa * 2f32.powi(-24),
        e => (1024.0 + mantissa) * 2f32.powi(e - 25),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[test]
fn sixteen_bit_floats_round_to_nearest_even() {
    let emulator = super::device::emulator(Default::default());
    let mut random = Random(10);
    // Any bits, ties and their neighbours of both formats around every exponent, and the special values.
    let mut x: Vec<f32> = (0..100_000).map(|_| f32::from_bits(random.bits() as u32)).collect();
    for exponent in 0..255u32 {
        for tie in [0x8000, 0x18000, 0x1000, 0x3000, 0x7f8000, 0x7ff000] {
            x.extend([-1i32, 0, 1].map(|d| f32::from_bits(((exponent << 23 | tie) as i32 + d) as u32)));
        }
    }
    x.extend([0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 65504.0, 65519.99, 65520.0]);
    x.retain(|x| !x.is_nan());
    x.push(f32::NAN);
    let n = x.len();
    let input = Buffer::of(&emulator, &x);
    let (bf16, f16) = (Buffer::<u16>::new(&emulator, n), Buffer::<u16>::new(&emulator, n));
    let (bf16_values, f16_values) = (Buffer::<f32>::new(&emulator, 65536), Buffer::<f32>::new(&emulator, 65536));
    let args: &[&dyn Argument] = &[&input, &bf16, &f16, &(n as i32), &bf16_values, &f16_values];
    launch(&emulator, "convert", ([1, 1, 1], [128, 1, 1], 0), args).unwrap();
    for ((&x, bf16), f16) in x.iter().zip(bf16.read()).zip(f16.read()) {
        let want = if x.is_nan() {
            [0x7fff; 2]
        } else if x.is_infinite() {
            [0x7f80, 0x7c00].map(|infinity| infinity | if x < 0.0 { 0x8000 } else { 0 })
        } else {
            [nearest(x, from_bf16, 0x7f80), nearest(x, from_f16, 0x7c00)]
        };
        assert_eq!([bf16, f16], want, "{x:e}");
    }
    for (values, of) in [(bf16_values, from_bf16 as fn(u16) -> f32), (f16_values, from_f16)] {
        for (bits, found) in (0..=u16::MAX).zip(values.read()) {
            let want = of(bits);
            assert!(found.to_bits() == want.to_bits() || found.is_nan() && want.is_nan(), "{bits:04x}: {found}");
        }
    }
}
