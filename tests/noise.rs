//! Randomness: the published generator, the layout of its counter, the distribution, the independence of the batch.

use diem::backend::cpu::{Cpu, Options};
use diem::backend::reference::Reference;
use diem::backend::{Backend, Shape};
use diem::ops::Noise;
use diem::ops::noise::{Purpose, Stream, philox4x32};

#[test]
fn philox_gives_the_published_words() {
    // the known-answer vectors of Random123 (kat_vectors, philox4x32 10)
    let zeros = philox4x32([0; 4], [0; 2]);
    assert_eq!(zeros, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = philox4x32([u32::MAX; 4], [u32::MAX; 2]);
    assert_eq!(ones, [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let pi = philox4x32([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(pi, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
}

#[test]
fn counter_layout_is_the_contract() {
    let stream = Stream { seed: 0x0123_4567_89ab_cdef, iteration: 5, epoch: 7, ..Stream::new(0, Purpose::Correction) };
    let words = stream.at(300, 2).words(41, 6);
    assert_eq!(words, philox4x32([6, 41, 300 | 2 << 16, 2 | 5 << 8 | 7 << 20], [0x89ab_cdef, 0x0123_4567]));
    let uniforms: Vec<f64> = stream.at(300, 2).uniforms(41).skip(24).take(4).collect();
    assert_eq!(uniforms, words.map(|w| f64::from(w) / 4_294_967_296.0));
}

#[test]
fn a_row_depends_on_its_sample_only() {
    fn rows<B: Backend + Noise>(backend: &B) {
        let (shape, stream) = (Shape::new(7, 3, 5, 3), Stream::new(9, Purpose::Step).at(3, 0));
        let samples = [6, 0, 3, 1, u32::MAX, 5, 2];
        let batch = backend.to_vec(&backend.noise_normal(shape, stream, &samples)).unwrap();
        for (row, sample) in batch.chunks_exact(45).zip(samples) {
            let alone = backend.to_vec(&backend.noise_normal(shape.with_n(1), stream, &[sample])).unwrap();
            assert_eq!(row, alone, "sample {sample} of {}", backend.name());
        }
    }
    rows(&Reference::new());
    rows(&Cpu::new(Options::default()).unwrap());
}

#[test]
fn streams_differ_in_every_field() {
    let base = Stream::new(1, Purpose::Step);
    let first = |stream: Stream| stream.words(0, 0);
    let others = [
        Stream { seed: 2, ..base },
        Stream { seed: 1 | 1 << 32, ..base },
        Stream { purpose: Purpose::Prior, ..base },
        base.at(1, 0),
        base.at(0, 1),
        Stream { iteration: 1, ..base },
        Stream { epoch: 1, ..base },
    ];
    for other in others {
        assert_ne!(first(base), first(other), "{other:?}");
    }
}

#[test]
fn numbers_are_standard_normal() {
    let count = 400_000;
    let stream = Stream::new(2, Purpose::Test);
    let z: Vec<f64> = (0..count as u32 / 4).flat_map(|block| stream.normals(0, block)).collect();
    assert!(z.iter().all(|z| z.abs() < 6.67), "beyond what 32 bits allow, or not finite");
    let moment = |k: i32| z.iter().map(|z| z.powi(k)).sum::<f64>() / count as f64;
    // five standard errors √((E z^2k - (E z^k)²) / count)
    let bound = |variance: f64| 5.0 * (variance / count as f64).sqrt();
    assert!(moment(1).abs() < bound(1.0));
    assert!((moment(2) - 1.0).abs() < bound(2.0));
    assert!(moment(3).abs() < bound(15.0));
    assert!((moment(4) - 3.0).abs() < bound(96.0));
    for lag in 1..=5 {
        let correlation = z.windows(lag + 1).map(|w| w[0] * w[lag]).sum::<f64>() / count as f64;
        assert!(correlation.abs() < bound(1.0), "lag {lag}: {correlation}");
    }
    // P(|z| < 0.6744897501960817) = 1/2
    let inside = z.iter().filter(|z| z.abs() < 0.674_489_750_196_081_7).count() as f64 / count as f64;
    assert!((inside - 0.5).abs() < bound(0.25));
}

#[test]
fn uniforms_fill_the_unit_interval() {
    let count = 100_000;
    let u: Vec<f64> = Stream::new(3, Purpose::Operator).uniforms(1).take(count).collect();
    assert!(u.iter().all(|u| (0.0..1.0).contains(u)));
    let (mean, square) = (u.iter().sum::<f64>() / count as f64, u.iter().map(|u| u * u).sum::<f64>() / count as f64);
    // five standard errors, of variances 1/12 and 4/45
    assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0 / count as f64).sqrt());
    assert!((square - 1.0 / 3.0).abs() < 5.0 * (4.0 / 45.0 / count as f64).sqrt());
}

/// Run with `--ignored --nocapture`.
#[test]
#[ignore = "a timing"]
fn noise_speed() {
    let cpu = Cpu::new(Options::default()).unwrap();
    let (shape, samples) = (Shape::new(4, 32, 32, 3), [0, 1, 2, 3]);
    let time = |i: usize| {
        let start = std::time::Instant::now();
        let _noise = cpu.noise_normal(shape, Stream::new(0, Purpose::Step).at(i, 0), &samples);
        start.elapsed().as_secs_f64()
    };
    let best = (0..50).map(time).fold(f64::INFINITY, f64::min);
    println!("{:.1} ns per number", best * 1e9 / shape.len() as f64);
}
