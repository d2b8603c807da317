//! Generated contents: known answers, bounds, and independence of splits and of the processor.

use std::hint::black_box;
use std::time::Instant;

use super::super::npy::Npy;
use super::super::source::validate;
use super::super::{EVERY_ROUND, Key};
use super::*;

fn elements(source: &Source, dtype: Dtype, time: u32, first: u64, count: usize) -> Vec<u8> {
    validate(source, dtype, first + count as u64).unwrap();
    let mut out = vec![0; count * dtype.size()];
    fill(source, dtype, Key::new(7, "x"), time, first, &mut out);
    out
}

fn numbers(source: &Source, dtype: Dtype, time: u32, first: u64, count: usize) -> Vec<f64> {
    let bytes = elements(source, dtype, time, first, count);
    (0..count).map(|i| dtype.decode(dtype.load(&bytes, i)).to_f64()).collect()
}

fn all_sources(dtype: Dtype) -> Vec<Source> {
    let values: std::sync::Arc<[u8]> = (0..2600 * dtype.size()).map(|i| (i % 251) as u8).collect();
    let mut sources = vec![
        Source::Fill(1),
        Source::Values(values.clone()),
        Source::Repeat(values[..7 * dtype.size()].into()),
        Source::Range { start: Number::Int(1), step: Number::Int(0) },
        Source::Integers { low: 0, high: 1 },
    ];
    if dtype.is_float() {
        sources.push(Source::Uniform { low: -1.5, high: 2.5 });
        sources.push(Source::Normal { mean: 0.25, std: 2.0 });
        sources.push(Source::Range { start: Number::Float(-0.5), step: Number::Float(0.125) });
        sources.push(Source::Integers { low: -8, high: 8 });
    } else if let Some((low, high)) = dtype.integer_range() {
        sources.push(Source::Integers { low, high });
        sources.push(Source::Integers { low, high: high - 1 });
    }
    sources
}

#[test]
fn any_split_and_any_level_give_the_same_bytes() {
    for dtype in Dtype::ALL {
        for source in all_sources(dtype) {
            let count = 2600;
            let whole = elements(&source, dtype, 3, 0, count);
            for level in Level::all() {
                for sizes in [&[1usize, 2, 3, 5, 64, 513][..], &[1024, 7], &[2600]] {
                    let mut got = vec![0xAA; whole.len()];
                    let (mut first, mut turn) = (0, 0);
                    while first < count {
                        let n = sizes[turn % sizes.len()].min(count - first);
                        let out = &mut got[first * dtype.size()..(first + n) * dtype.size()];
                        fill_at(level, &source, dtype, Key::new(7, "x"), 3, first as u64, out);
                        (first, turn) = (first + n, turn + 1);
                    }
                    assert_eq!(got, whole, "{source:?} {dtype} {level:?} {sizes:?}");
                }
            }
        }
    }
}

#[test]
fn contents_depend_on_seed_name_and_round_alone() {
    let source = Source::Uniform { low: 0.0, high: 1.0 };
    let make = |seed, name, time| {
        let mut out = [0u8; 64];
        fill(&source, Dtype::F32, Key::new(seed, name), time, 0, &mut out);
        out
    };
    let base = make(0, "x", 0);
    assert_eq!(base, make(0, "x", 0));
    for other in [make(1, "x", 0), make(0, "y", 0), make(0, "x", 1), make(0, "x", EVERY_ROUND)] {
        assert_ne!(base, other);
    }
}

#[test]
fn uniform_stays_below_high_and_not_below_low() {
    for dtype in Dtype::ALL.into_iter().filter(|dtype| dtype.is_float()) {
        for (low, high) in
            [(0.0, 1.0), (-1.0, 0.0), (1.0, 1.0078125), (0.1, 0.3), (-448.0, 448.0), (-65504.0, 65504.0), (3.0, 3.0), (-1.0, -1e-30)]
        {
            if validate(&Source::Uniform { low, high }, dtype, 1).is_err() {
                continue;
            }
            let values = numbers(&Source::Uniform { low, high }, dtype, 0, 0, 20_000);
            let least = dtype.decode(dtype.encode(Number::Float(low)).unwrap()).to_f64();
            for v in values {
                assert!(v >= least && (v < high || v == least), "{dtype} {low} {high}: {v}");
            }
        }
    }
}

#[test]
fn the_largest_word_gives_the_limit() {
    // 1 - 2^-24 is f32's largest value below 1; f16's is 1 - 2^-11, although the draw would round to 1.
    assert_eq!(Uniform32::new(0.0, 1.0).value(u32::MAX), 1.0f32.next_down());
    assert_eq!(Uniform32::new(1.0, 2.0).value(u32::MAX), 2.0f32.next_down());
    assert_eq!(Uniform32::new(-1.0, 0.0).limit, -1e-45);
    let limits = |narrow| [1.0, 0.0, -1.0, 0.1].map(|high| UniformNarrow::new(narrow, -2.0, high).limit);
    assert_eq!(limits(Narrow::F16)[..3], [1.0 - 2f64.powi(-11), -(2f64.powi(-24)), -1.0 - 2f64.powi(-10)]);
    assert_eq!(limits(Narrow::Bf16)[..3], [1.0 - 2f64.powi(-8), -(2f64.powi(-133)), -1.0 - 2f64.powi(-7)]);
    assert_eq!(limits(Narrow::F8e4m3)[..3], [1.0 - 2f64.powi(-4), -(2f64.powi(-9)), -1.0 - 2f64.powi(-3)]);
    assert_eq!(limits(Narrow::F8e5m2)[..3], [1.0 - 2f64.powi(-3), -(2f64.powi(-16)), -1.0 - 2f64.powi(-2)]);
    assert!(limits(Narrow::F16)[3] < 0.1);
}

#[test]
fn narrow_floats_get_the_rounded_f32_draw() {
    for source in [Source::Uniform { low: -1.0, high: 2.0 }, Source::Normal { mean: 1.0, std: 3.0 }] {
        let wide = numbers(&source, Dtype::F32, 1, 0, 5000);
        for dtype in [Dtype::F16, Dtype::Bf16] {
            for (narrow, wide) in numbers(&source, dtype, 1, 0, 5000).into_iter().zip(&wide) {
                let rounded = match dtype {
                    Dtype::F16 => half::f16::from_f32(*wide as f32).to_f64(),
                    _ => half::bf16::from_f32(*wide as f32).to_f64(),
                };
                assert!(narrow == rounded || rounded == 2.0 && narrow < 2.0, "{dtype} {wide}: {narrow}");
            }
        }
    }
}

#[test]
fn distributions_have_their_moments() {
    for dtype in [Dtype::F64, Dtype::F32, Dtype::F16] {
        let n = 200_000;
        let moments = |values: &[f64]| {
            let mean = values.iter().sum::<f64>() / n as f64;
            (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64)
        };
        let (mean, variance) = moments(&numbers(&Source::Uniform { low: -1.0, high: 3.0 }, dtype, 0, 0, n));
        assert!((mean - 1.0).abs() < 0.02 && (variance - 16.0 / 12.0).abs() < 0.02, "{dtype} {mean} {variance}");
        let values = numbers(&Source::Normal { mean: 1.0, std: 2.0 }, dtype, 0, 0, n);
        let (mean, variance) = moments(&values);
        assert!((mean - 1.0).abs() < 0.02 && (variance - 4.0).abs() < 0.05, "{dtype} {mean} {variance}");
        let within = values.iter().filter(|v| (*v - 1.0).abs() < 2.0).count() as f64 / n as f64;
        assert!((within - 0.6827).abs() < 0.005, "{dtype} {within}");
    }
}

#[test]
fn integers_reach_both_ends_evenly() {
    let counts = numbers(&Source::Integers { low: -2, high: 3 }, Dtype::I8, 0, 0, 60_000).into_iter().fold([0; 6], |mut counts, v| {
        counts[(v + 2.0) as usize] += 1;
        counts
    });
    assert!(counts.iter().all(|&c| (9_500..10_500).contains(&c)), "{counts:?}");
    let source = Source::Integers { low: i64::MIN.into(), high: i64::MAX.into() };
    let bytes = elements(&source, Dtype::I64, 0, 0, 1);
    let word = |draw| u64::from(Draw { key: Key::new(7, "x"), time: 0, draw }.word(0));
    let d = word(0) << 32 | word(1);
    assert_eq!(Dtype::I64.load(&bytes, 0), d.wrapping_add(i64::MIN as u64));
}

#[test]
fn the_second_word_counts_where_it_carries() {
    // Every second chunk of some has a word that carries; none of a power of two has.
    for (low, high) in [(0i128, 4_000_000_000i128), (-5, 1_000_000), (0, (1 << 32) - 1), (3, 10), (0, (1 << 32) - 2)] {
        let bytes = elements(&Source::Integers { low, high }, Dtype::I64, 0, 0, 20_000);
        let word = |i, draw| u64::from(Draw { key: Key::new(7, "x"), time: 0, draw }.word(i));
        for i in 0..20_000 {
            let d = word(i, 0) << 32 | word(i, 1);
            let want = low + ((u128::from(d) * (high - low + 1) as u128) >> 64) as i128;
            assert_eq!(Dtype::I64.decode(Dtype::I64.load(&bytes, i as usize)), Number::Int(want), "{low} {high} {i}");
        }
    }
}

#[test]
fn ranges_are_exact() {
    let int = Number::Int;
    let bytes = elements(&Source::Range { start: int(u64::MAX.into()), step: int(-3) }, Dtype::U64, 0, 1 << 33, 2);
    assert_eq!(Dtype::U64.load(&bytes, 1), u64::MAX - 3 * ((1 << 33) + 1));
    let tenth = Source::Range { start: int(1), step: Number::Float(0.1) };
    assert_eq!(numbers(&tenth, Dtype::F32, 0, 3, 1), [f64::from((1.0 + 0.1 * 3.0) as f32)]);
    let down = Source::Range { start: int(100), step: int(-1) };
    assert_eq!(numbers(&down, Dtype::I8, 0, 199, 2), [-99.0, -100.0]);
}

#[test]
fn permutations_are_permutations() {
    for n in [0, 1, 2, 3, 100] {
        let mut out = vec![9; n as usize];
        permutation(5, 1, n, &mut out);
        let mut sorted = out.clone();
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..n), "{out:?}");
    }
    let order = |seed, epoch| {
        let mut out = [0; 50];
        permutation(seed, epoch, 50, &mut out);
        out
    };
    assert_ne!(order(0, 0), order(0, 1));
    assert_ne!(order(0, 0), order(1, 0));
}

#[test]
fn known_answers_of_an_independent_generator() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/random");
    let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&text).unwrap();
    let float = |v: &serde_json::Value| v.as_f64().unwrap();
    let mut seen = 0;
    for case in cases["cases"].as_array().unwrap() {
        let args = &case["args"];
        let whole = |at: usize| args[at].as_str().unwrap().parse::<i128>().unwrap();
        let source = match case["source"].as_str().unwrap() {
            "uniform" => Source::Uniform { low: float(&args[0]), high: float(&args[1]) },
            "normal" => Source::Normal { mean: float(&args[0]), std: float(&args[1]) },
            "integers" => Source::Integers { low: whole(0), high: whole(1) },
            "range" if args[0].is_string() => Source::Range { start: Number::Int(whole(0)), step: Number::Int(whole(1)) },
            "range" => Source::Range { start: Number::Float(float(&args[0])), step: Number::Float(float(&args[1])) },
            other => panic!("{other}"),
        };
        let dtype = Dtype::from_name(case["dtype"].as_str().unwrap()).unwrap();
        let npy = Npy::open(folder.join(case["file"].as_str().unwrap())).unwrap();
        assert!(npy.dtype_matches(dtype), "{case}");
        let key = Key::new(case["seed"].as_u64().unwrap(), case["name"].as_str().unwrap());
        let mut got = vec![0; npy.bytes().len()];
        validate(&source, dtype, npy.shape().elements()).unwrap();
        fill(&source, dtype, key, case["time"].as_u64().unwrap() as u32, case["first"].as_u64().unwrap(), &mut got);
        assert_eq!(got, npy.bytes(), "{case}");
        seen += 1;
    }
    assert!(seen >= 39);
    for case in cases["permutations"].as_array().unwrap() {
        let want: Vec<u32> = case["order"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap() as u32).collect();
        let mut got = vec![0; want.len()];
        permutation(case["seed"].as_u64().unwrap(), case["epoch"].as_u64().unwrap() as u32, want.len() as u32, &mut got);
        assert_eq!(got, want, "{case}");
    }
}

/// Times of one fill of 1,024 elements: `cargo test --release --lib data -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn time_of_fills() {
    let key = Key::new(0, "x");
    for level in Level::all() {
        let (mut out, mut best) = ([0u8; 4096], f64::MAX);
        for _ in 0..50 {
            let start = Instant::now();
            for time in 0..1000 {
                Draw { key, time, draw: 0 }.words(level, 0, black_box(&mut out));
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e6);
        }
        println!("words {level:?}: {best:.0} ns");
    }
    for (source, dtype) in [
        (Source::Uniform { low: -1.0, high: 1.0 }, Dtype::F32),
        (Source::Uniform { low: -1.0, high: 1.0 }, Dtype::F16),
        (Source::Uniform { low: -1.0, high: 1.0 }, Dtype::F64),
        (Source::Normal { mean: 0.0, std: 1.0 }, Dtype::F32),
        (Source::Normal { mean: 0.0, std: 1.0 }, Dtype::F64),
        (Source::Integers { low: -5, high: 1000 }, Dtype::I32),
        (Source::Integers { low: i64::MIN.into(), high: i64::MAX.into() }, Dtype::I64),
        (Source::Range { start: Number::Int(0), step: Number::Int(1) }, Dtype::F32),
        (Source::Fill(1), Dtype::F32),
    ] {
        let mut out = vec![0u8; 1024 * dtype.size()];
        for level in Level::all() {
            let mut best = f64::MAX;
            for _ in 0..50 {
                let start = Instant::now();
                for round in 0..1000 {
                    fill_at(level, black_box(&source), dtype, key, round, 0, black_box(&mut out));
                }
                best = best.min(start.elapsed().as_secs_f64() * 1e6);
            }
            println!("{source:?} {dtype} {level:?}: {best:.0} ns");
        }
    }
}
