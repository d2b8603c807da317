//! Expressions that nobody would write: each is refused with a place in its text, or evaluated, the same by every level.

use super::*;

/// SplitMix64. *Source*: G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators" (2014).
struct Draws(u64);

impl Draws {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as usize % n
    }

    fn of<'t>(&mut self, words: &'t str) -> &'t str {
        let all: Vec<&str> = words.split(' ').collect();
        all[self.below(all.len())]
    }
}

const LEAVES: &str = "f f h d i l u b m v s round n 0 1 2 3 -1 7 0.5 1e308 1e-320 9223372036854775807 18446744073709551615 2**62 2**126 nan inf pi true \
    index(0) index(1) index(9)";

const UNARY: &str = "- ~ not+ abs sign floor ceil rint sqrt rsqrt exp log log2 sin cos tan tanh erf sigmoid relu gelu isfinite isnan sum mean \
    max min prod any all argmax argmin norm transpose cumsum softmax sort f16 bf16 f32 f64 f8e4m3 f8e5m2 i8 u8 i16 u16 i32 u32 i64 u64 bool";

const BINARY: &str = "+ - * / // % ** & | ^ << >> < <= > >= == != +and+ +or+";

const CALLS: &str = "matmul cdiv min max pow where clamp reshape repeat compress bincount segment_sum nonsense";

fn tree(draws: &mut Draws, depth: usize) -> String {
    if depth == 0 {
        return draws.of(LEAVES).to_string();
    }
    let less = draws.below(depth);
    let one = tree(draws, depth - 1);
    match draws.below(9) {
        0 | 1 => format!("{}({one})", draws.of(UNARY).replace('+', " ")),
        2 | 3 => format!("({one}) {} ({})", draws.of(BINARY).replace("+and+", "and").replace("+or+", "or"), tree(draws, less)),
        4 => format!("{}({one}, axis={})", draws.of(UNARY).replace('+', " "), draws.of("0 1 -1 2 -9223372036854775808 0.5 f")),
        5 => format!("{}({one}, {})", draws.of(CALLS), tree(draws, less)),
        6 => format!("{}({one}, {}, {})", draws.of(CALLS), tree(draws, less), draws.of(LEAVES)),
        7 => format!("f[{one}]"),
        _ => format!("{}[{}:{}, {one}]", draws.of("f m v s i"), draws.of("0 1 -1 n 2**62"), draws.of("1 2 3 n 2**63-1")),
    }
}

fn world() -> World {
    let odd = [0.0, -1.5, 2.0, f64::NAN, f64::INFINITY, 1e-40, 3.0];
    let whole = [0.0, 1.0, 2.0, 100.0, 5.0];
    World::default()
        .tensor("f", Dtype::F32, &[3, 4], &odd)
        .tensor("h", Dtype::F16, &[4], &odd)
        .tensor("d", Dtype::F64, &[3, 1], &odd)
        .tensor("i", Dtype::I32, &[3, 4], &[-7.0, 0.0, 2.0, 2147483647.0, -2147483648.0])
        .tensor("l", Dtype::I64, &[4], &[-9223372036854775808.0, 0.0, -1.0, 3.0])
        .tensor("u", Dtype::U64, &[3, 4], &[18446744073709549568.0, 0.0, 1.0])
        .tensor("b", Dtype::Bool, &[3, 4], &[1.0, 0.0, 0.0])
        .tensor("m", Dtype::U8, &[4, 3], &whole)
        .tensor("v", Dtype::I32, &[0], &whole)
        .tensor("s", Dtype::F32, &[], &whole)
        .number("n", 3)
}

/// `RUNJOB_CASES` sets how many; the same ones every time.
#[test]
fn ten_thousand_expressions_are_refused_with_a_place_or_evaluated() {
    let cases = std::env::var("RUNJOB_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000u64);
    let world = world();
    let mut evaluated = 0;
    for case in 0..cases {
        let mut draws = Draws(case);
        let depth = 1 + draws.below(4);
        let mut text = tree(&mut draws, depth);
        // One in three is broken.
        if case % 3 == 0 {
            let at = draws.below(text.len());
            text.replace_range(at..at + 1, draws.of("( ) [ ] , : . = é + * ** < x 9 _ \" \u{1f600}"));
        }
        let shape: &[u64] = [&[3, 4][..], &[4], &[]][draws.below(3)];
        let answer = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.eval(&text, shape)));
        match answer.unwrap_or_else(|_| panic!("case {case} panics: {text}")) {
            Ok(values) => {
                evaluated += 1;
                assert_eq!(values.len() as u64, shape.iter().product::<u64>(), "{text}");
            }
            Err(error) => {
                assert!(!error.message.is_empty(), "{text}");
                assert!(text.get(error.span.clone()).is_some(), "{text}: {:?}", error.span);
            }
        }
    }
    assert!(evaluated * 20 > cases, "only {evaluated} of {cases} expressions had values");
}
