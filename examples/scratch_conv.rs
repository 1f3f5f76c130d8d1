use diem::backend::cpu::{Cpu, Options};
use diem::backend::{Backend, Keep, Shape};
use diem::ops::channel_norm::Modulation;
use diem::ops::conv2d::Conv2dSpec;
use diem::ops::res_block::ResBlockWeights;
use diem::ops::{Conv2d, GatedResidual, Linear, Merge, ResBlock};
use std::time::Instant;
fn rnd<B: Backend>(b: &B, s: Shape, scale: f64) -> B::Tensor {
    let mut st = 88172645463325252u64;
    let v: Vec<f64> = (0..s.len())
        .map(|_| {
            st ^= st << 13;
            st ^= st >> 7;
            st ^= st << 17;
            scale * ((st >> 11) as f64 / (1u64 << 52) as f64 - 1.0)
        })
        .collect();
    b.upload(s, &v)
}
fn best(n: usize, mut f: impl FnMut()) -> f64 {
    f();
    f();
    let mut b = f64::MAX;
    for _ in 0..n {
        let t = Instant::now();
        f();
        b = b.min(t.elapsed().as_secs_f64());
    }
    b
}
fn main() {
    let a: Vec<usize> = std::env::args().skip(1).map(|s| s.parse().unwrap()).collect();
    let threads = a[0];
    let reps = a[1];
    let only = a.get(2).copied();
    let b = Cpu::new(Options { threads, ..Options::default() }).unwrap();
    let f2 = Cpu::new(Options { threads, low_memory: true, ..Options::default() }).unwrap();
    for (i, (ci, co, h)) in
        [(128, 128, 32), (256, 256, 16), (384, 384, 8), (384, 128, 32), (640, 256, 16)].into_iter().enumerate()
    {
        if only.is_some_and(|o| o != i) {
            continue;
        }
        let n = 4;
        let x = rnd(&b, Shape::new(n, h, h, ci), 1.0);
        let w = rnd(&b, Shape::flat(9 * ci * co), 0.03);
        let bias = rnd(&b, Shape::flat(co), 0.5);
        let spec = Conv2dSpec { c_in: ci, c_out: co, stride: 1 };
        let t = Instant::now();
        let k = b.conv2d(spec, &w, &bias, Shape::new(n, h, h, ci), true);
        let pack = t.elapsed().as_secs_f64();
        let fl = spec.flops(Shape::new(n, h, h, ci)) / 1e9;
        let tf = best(reps, || drop(b.conv2d_forward(&k, &x)));
        let dy = rnd(&b, Shape::new(n, h, h, co), 1.0);
        let tv = best(reps, || drop(b.conv2d_vjp(&k, Shape::new(n, h, h, ci), &dy)));
        let mut dw = rnd(&b, Shape::flat(9 * ci * co), 0.03);
        let mut db = rnd(&b, Shape::flat(co), 0.5);
        let tp = best(2, || b.conv2d_vjp_params(&k, &x, &dy, &mut dw, &mut db));
        let k2 = f2.conv2d(spec, &w, &bias, Shape::new(n, h, h, ci), false);
        let t2 = best(reps, || drop(f2.conv2d_forward(&k2, &x)));
        print!(
            "{ci}->{co}@{h}: pack {pack:.3} s, F4 {:.0}, vjp {:.0}, F2 {:.0}, dw {:.0}",
            fl / tf,
            fl / tv,
            fl / t2,
            fl / tp
        );
        if ci == co {
            let m = rnd(&b, Shape::rows(1, 3 * ci), 0.5);
            let m = Modulation { gates: b.gates(&m), abc: m };
            let kk = ResBlockWeights { conv1: &k, conv2: &k };
            let tr = best(reps, || drop(b.res_block_forward(&kk, &m, &x, Keep::Input)));
            let (_, s) = b.res_block_forward(&kk, &m, &x, Keep::Input);
            let s = s.unwrap();
            let trv = best(reps, || drop(b.res_block_vjp(&kk, &m, &s, &dy, None)));
            print!(", res block {:.0}, vjp {:.0}", 2.0 * fl / tr, 2.0 * fl / trv);
        } else {
            let c1 = ci * 2 / 3;
            let c1 = if ci == 640 { 384 } else { c1 };
            let xs = rnd(&b, Shape::new(n, h / 2, h / 2, c1), 1.0);
            let sk = rnd(&b, Shape::new(n, h, h, ci - c1), 1.0);
            let tr = best(reps, || drop(b.merge_forward(&k, &xs, &sk)));
            let trv = best(reps, || drop(b.merge_vjp(&k, c1, ci - c1, &dy)));
            print!(", merge {:.0}, vjp {:.0}", fl / tr, fl / trv);
        }
        println!();
    }
    if only.is_none_or(|o| o == 9) {
        for (ci, co) in [(256, 768), (256, 256), (768, 256)] {
            let x = rnd(&b, Shape::new(4, 16, 16, ci), 1.0);
            let w = rnd(&b, Shape::flat(ci * co), 0.03);
            let k = b.linear(ci, co, &w, None);
            let t = best(reps, || drop(b.linear_forward(&k, &x)));
            println!("linear {ci}->{co}: {:.0}", 2.0 * 1024.0 * (ci * co) as f64 / t / 1e9);
            let x = rnd(&b, Shape::new(1, 1, 1, ci), 1.0);
            let t = best(reps, || drop(b.linear_forward(&k, &x)));
            println!("  one row: {:.1} us", t * 1e6);
        }
        for (ci, co, h) in [(128, 256, 32), (3, 128, 32), (128, 3, 32)] {
            let st = if ci == 128 && co == 256 { 2 } else { 1 };
            let s = Shape::new(4, h, h, ci);
            let x = rnd(&b, s, 1.0);
            let w = rnd(&b, Shape::flat(9 * ci * co), 0.03);
            let bias = rnd(&b, Shape::flat(co), 0.5);
            let spec = Conv2dSpec { c_in: ci, c_out: co, stride: st };
            let k = b.conv2d(spec, &w, &bias, s, true);
            let fl = spec.flops(s) / 1e9;
            let tf = best(reps, || drop(b.conv2d_forward(&k, &x)));
            let dy = rnd(&b, spec.output(s), 1.0);
            let tv = best(reps, || drop(b.conv2d_vjp(&k, s, &dy)));
            println!(
                "{ci}->{co}@{h} stride {st}: {:.0} ({:.2} ms), vjp {:.0} ({:.2} ms)",
                fl / tf,
                tf * 1e3,
                fl / tv,
                tv * 1e3
            );
        }
    }
}
