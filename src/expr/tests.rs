use proptest::prelude::*;

use super::*;
use crate::diag::TextError;
use crate::tensor::{Dtype, Number, Shape};

/// A few dims, the round, and one tensor.
struct Dims {
    shape: Shape,
}

fn dims() -> Dims {
    Dims { shape: Shape::new(vec![3, 4]).unwrap() }
}

impl Scope for Dims {
    fn get(&self, name: &str) -> Option<Name<'_>> {
        match name {
            "n" => Some(Name::Number(Number::Int(1000))),
            "m" => Some(Name::Number(Number::Int(-7))),
            "huge" => Some(Name::Number(Number::Int(i128::MAX))),
            "half" => Some(Name::Number(Number::Float(0.5))),
            "round" => Some(Name::Round),
            "x" => Some(Name::Tensor { id: 0, dtype: Dtype::F32, shape: &self.shape }),
            "k" => Some(Name::Tensor { id: 1, dtype: Dtype::I32, shape: &self.shape }),
            "gone" => Some(Name::Refused("`gone` is scratch and has no contents here".into())),
            _ => None,
        }
    }

    fn names(&self) -> Vec<String> {
        ["n", "m", "x"].map(String::from).to_vec()
    }
}

/// The tree with all its parentheses.
fn shown(expr: &Expr) -> String {
    let list = |exprs: &[Expr]| exprs.iter().map(shown).collect::<Vec<_>>().join(", ");
    match &expr.kind {
        ExprKind::Number(number) => number.to_string(),
        ExprKind::Bool(value) => value.to_string(),
        ExprKind::Name(name) => name.clone(),
        ExprKind::Unary(op, x) => format!("({} {})", op.name(), shown(x)),
        ExprKind::Binary(op, a, b) => format!("({} {} {})", shown(a), op.name(), shown(b)),
        ExprKind::Call { function, args, axis, .. } => {
            let axis = axis.as_ref().map(|axis| format!("; {}", shown(axis))).unwrap_or_default();
            format!("{function}({}{axis})", list(args))
        }
        ExprKind::Index { base, index } => {
            let bound = |bound: &Option<Expr>| bound.as_ref().map(shown).unwrap_or_default();
            let one = |entry: &Subscript| match entry {
                Subscript::At(at) => shown(at),
                Subscript::Slice(low, high, _) => format!("{}:{}", bound(low), bound(high)),
            };
            format!("{}[{}]", shown(base), index.iter().map(one).collect::<Vec<_>>().join(", "))
        }
    }
}

#[test]
fn precedence_is_pythons() {
    for (text, want) in [
        ("a + b * c", "(a + (b * c))"),
        ("a - b - c", "((a - b) - c)"),
        ("-a ** 2", "(- (a ** 2))"),
        ("2 ** -n ** 2", "(2 ** (- (n ** 2)))"),
        ("a ** b ** c", "(a ** (b ** c))"),
        ("a | b ^ c & d << 1 + 2", "(a | (b ^ (c & (d << (1 + 2)))))"),
        ("not a == b and c or d", "(((not (a == b)) and c) or d)"),
        ("~a % b // c / d", "((((~ a) % b) // c) / d)"),
        ("a < b | c", "(a < (b | c))"),
        ("-x[1]", "(- x[1])"),
        ("x[i, a:b, :, 2:][0]", "x[i, a:b, :, 2:][0]"),
        ("max(x, axis=-1) + sum(a, b,)", "(max(x; (- 1)) + sum(a, b))"),
        ("(a + b) * +c", "((a + b) * c)"),
        ("sum + sum(sum)", "(sum + sum(sum))"),
    ] {
        let expr = parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(shown(&expr), want, "{text}");
        assert_eq!(expr.span, 0..text.len(), "{text}");
    }
    let ExprKind::Binary(_, a, b) = parse(" a + f(b) ").unwrap().kind else { panic!("not a sum") };
    assert_eq!((a.span, b.span), (1..2, 5..9));
}

#[test]
fn numbers_are_exact() {
    for (text, want) in [
        ("1_000", Number::Int(1000)),
        ("0xFFFF_FFFF_FFFF_FFFF", Number::Int(u64::MAX.into())),
        ("0x1.8p-3", Number::Float(0.1875)),
        ("0x1p-1074", Number::Float(5e-324)),
        ("0xap0", Number::Float(10.0)),
        ("1e3", Number::Float(1000.0)),
        (".5", Number::Float(0.5)),
        ("2.5E-1", Number::Float(0.25)),
        ("170141183460469231731687303715884105727", Number::Int(i128::MAX)),
        ("inf", Number::Float(f64::INFINITY)),
    ] {
        assert_eq!(parse(text).unwrap().kind, ExprKind::Number(want), "{text}");
    }
}

#[test]
fn parse_errors_say_what_would_be_right() {
    for (text, span, part, help) in [
        ("", 0..0, "empty expression", "write a number"),
        ("a *", 3..3, "expected an operand after `*`, found the end", ""),
        ("a * / b", 4..5, "expected an operand after `*`, found `/`", ""),
        ("(a + b", 0..1, "`(` is never closed", "add the missing `)`"),
        ("f(a, (b)", 1..2, "`(` is never closed", ""),
        ("x[1", 1..2, "`[` is never closed", ""),
        ("(a]", 2..3, "expected `)` for the `(` at character 1, found `]`", ""),
        ("a)", 1..2, "`)` closes nothing", ""),
        ("a && b", 2..4, "`&&` is not an operator", "write `and`"),
        ("a = b", 2..3, "`=` assigns", "write `==`"),
        ("!a", 0..1, "`!` is not an operator", "write `not`"),
        ("a < b < c", 2..7, "comparisons do not chain", "a < b and b < c"),
        ("2x", 0..2, "`2x` is not a number", "write `2 * x`"),
        ("a b", 2..3, "expected an operator after `a`, found `b`", ""),
        ("1e999", 0..5, "beyond 1.8e308", "write `inf`"),
        ("0x1_0000_0000_0000_0000_0000_0000_0000_0000", 0..43, "beyond 2^127 - 1", ""),
        ("0x1.00000000000001p0", 0..20, "significant bits", ""),
        ("a + ä", 4..6, "unexpected character", "ASCII"),
        ("sum(x, dim=1)", 7..10, "`dim=` is not a keyword", "axis="),
        ("x[::2]", 3..4, "no step", ""),
        ("w as u32", 2..4, "expected an operator", ""),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {}", error.message);
        assert!(error.help.unwrap_or_default().contains(help), "{text}");
        assert_eq!(error.span, span, "{text}");
    }
    for text in
        ["(".repeat(10_000), "-".repeat(10_000), "f(".repeat(500), "1+".repeat(10_000) + "1", "x[".repeat(500), "2**".repeat(500) + "2"]
    {
        assert!(parse(&text).is_err(), "{}", &text[..4]);
    }
    assert!(parse(&("1+".repeat(200) + "1")).is_ok());
}

#[test]
fn views_and_ranges() {
    let view = parse_view("x[i, 2:n] as u32").unwrap();
    assert_eq!((view.name.as_str(), view.name_span, view.index.len()), ("x", 0..1, 2));
    assert_eq!((view.index[1].span(), view.cast), (5..8, Some(("u32".to_string(), 13..16))));
    assert!(parse_view("x").unwrap().index.is_empty());
    for (text, span) in [("2", 0..1), ("x + 1", 2..3), ("x[]", 2..3), ("round", 0..5), ("", 0..0), ("x[1](2)", 4..5)] {
        assert_eq!(parse_view(text).expect_err(text).span, span, "{text}");
    }
    let (low, high) = parse_range("0 : n - 1").unwrap();
    assert_eq!((shown(&low), shown(&high)), ("0".to_string(), "(n - 1)".to_string()));
    for text in ["n", "0:", ":n", "0:n:2", "0:n)", ""] {
        assert!(parse_range(text).is_err(), "{text}");
    }
}

fn whole(text: &str) -> Result<i128, TextError> {
    integer(&parse(text)?, &dims())
}

#[test]
fn integers_are_exact() {
    for (text, want) in [
        ("n / 8", 125),
        ("m // 2", -4),
        ("m % 4", 1),
        ("7 % -4", -1),
        ("cdiv(n, 256)", 4),
        ("cdiv(m, 2)", -3),
        ("2 ** 100 // 2 ** 98", 4),
        ("(-1) ** 1000001", -1),
        ("min(n, 3, m) + max(1, 2)", -5),
        ("abs(m) * sign(m)", -7),
        ("clamp(n, 0, 10)", 10),
        ("where(n > 0, n // 10, n // 0)", 100),
        ("n == 1000 and not m > 0", 1),
        ("n > 0 or n // 0", 1),
        ("1 << 126 >> 120", 64),
        ("5 & 6 | 8 ^ 1", 13),
        ("~0", -1),
        ("u8(m) + i8(200)", 193),
        ("huge", i128::MAX),
        ("true + true", 2),
    ] {
        assert_eq!(whole(text), Ok(want), "{text}");
    }
}

#[test]
fn integer_errors_name_the_place() {
    for (text, span, part) in [
        ("1 + 7 / 2", 4..9, "7 / 2 is not whole"),
        ("huge + 1", 0..8, "`+` overflows"),
        ("-(-huge - 1)", 0..12, "overflows"),
        ("3 * (n // 0)", 4..12, "`//` divides by zero"),
        ("1 << 127", 0..8, "shift by 127 is out of range (0 to 126)"),
        ("1 >> -1", 0..7, "shift by -1"),
        ("2 ** -1", 0..7, "negative exponent -1"),
        ("2 ** huge", 0..9, "overflows"),
        ("n * 0.5", 4..7, "0.5 is a float"),
        ("n * half", 4..8, "0.5 is a float"),
        ("sqrt(n)", 0..7, "gives a float"),
        ("f32(n)", 0..6, "gives a float"),
        ("pow(2, 2)", 0..9, "gives a float"),
        ("x + 1", 0..1, "`x` is a tensor of shape [3, 4]"),
        ("n + round", 4..9, "`round` may not stand here"),
        ("gone", 0..4, "scratch"),
        ("sum(n)", 0..6, "function of tensors"),
        ("max(n)", 0..6, "at least 2"),
        ("x[0]", 0..4, "one number"),
        ("bits(3)", 0..4, "not a function"),
    ] {
        let error = whole(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {}", error.message);
        assert_eq!(error.span, span, "{text}: {}", error.message);
    }
    let unknown = whole("nn + 1").unwrap_err().unknown.unwrap();
    assert_eq!(unknown, ("nn".to_string(), vec!["n".to_string(), "m".to_string(), "x".to_string()]));
    assert!(whole("cdvi(1, 2)").unwrap_err().unknown.unwrap().1.contains(&"cdiv".to_string()));
}

#[test]
fn scalars_keep_integers_until_a_float() {
    for (text, place, want, uses_round) in [
        ("7 / 2", Place::Float, Number::Float(3.5), false),
        ("7 // 2 * n", Place::Float, Number::Int(3000), false),
        ("round * 2 + n", Place::Integer, Number::Int(1006), true),
        ("where(round < 2, 1 // 0, 0.5 * round)", Place::Float, Number::Float(1.5), true),
        ("sqrt(16) + exp(0)", Place::Float, Number::Float(5.0), false),
        ("f16(2049)", Place::Float, Number::Float(2048.0), false),
        ("bf16(1e39)", Place::Float, Number::Float(f64::INFINITY), false),
        ("i32(-3.7)", Place::Float, Number::Int(-3), false),
        ("u8(inf) + u8(256 + half)", Place::Float, Number::Int(0), false),
        ("-7.5 // 2", Place::Float, Number::Float(-4.0), false),
        ("-7.5 % 2", Place::Float, Number::Float(0.5), false),
        ("isnan(0 * inf)", Place::Float, Number::Int(1), false),
        ("max(1, half)", Place::Float, Number::Float(1.0), false),
    ] {
        let scalar = Scalar::bind(&parse(text).unwrap(), &dims(), place).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((scalar.eval(3), scalar.uses_round()), (Ok(want), uses_round), "{text}");
    }
    let scalar = Scalar::bind(&parse("n // (round - 3)").unwrap(), &dims(), Place::Integer).unwrap();
    assert_eq!(scalar.eval(1), Ok(Number::Int(-500)));
    assert_eq!(scalar.eval(3).unwrap_err().span, 0..16);
}

fn anything() -> impl Strategy<Value = String> {
    let words = "x|k|n|round|pi|1|2.5|0x1p3|f16|sum|max|matmul|index|transpose|where|axis=|not | and |\\+|-|\\*\\*|//|%|<<|==|<|~|\\^|\\(|\\)|\\[|\\]|:|,| ";
    prop_oneof![".{0,60}", proptest::string::string_regex(&format!("({words}){{0,20}}")).unwrap()]
}

/// Texts that mostly parse, so that what comes after the parser is reached.
fn formula() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("x"),
        Just("k"),
        Just("n"),
        Just("m"),
        Just("huge"),
        Just("round"),
        Just("0"),
        Just("2"),
        Just("-1"),
        Just("0.5"),
        Just("nan"),
        Just("true"),
        Just("x[1]"),
        Just("k[0:2, 1:]"),
        Just("index(1)"),
        Just("170141183460469231731687303715884105727")
    ];
    let binary = prop_oneof![
        Just("+"),
        Just("-"),
        Just("*"),
        Just("/"),
        Just("//"),
        Just("%"),
        Just("**"),
        Just("&"),
        Just("^"),
        Just("<<"),
        Just(">>"),
        Just("<"),
        Just("=="),
        Just(" and ")
    ];
    let call = prop_oneof![
        Just("sum"),
        Just("max"),
        Just("mean"),
        Just("prod"),
        Just("all"),
        Just("transpose"),
        Just("abs"),
        Just("i8"),
        Just("f16"),
        Just("-"),
        Just("~"),
        Just("not "),
        Just("sqrt"),
        Just("gelu"),
        Just("isfinite"),
        Just("u64")
    ];
    let pair = prop_oneof![Just("matmul"), Just("max"), Just("cdiv"), Just("pow")];
    leaf.prop_map(String::from).prop_recursive(4, 12, 3, move |inner| {
        prop_oneof![
            (inner.clone(), binary.clone(), inner.clone()).prop_map(|(a, op, b)| format!("({a}{op}{b})")),
            (call.clone(), inner.clone()).prop_map(|(f, x)| format!("{f}({x})")),
            (pair.clone(), inner.clone(), inner.clone()).prop_map(|(f, a, b)| format!("{f}({a}, {b})")),
            (inner.clone(), 0..3i32).prop_map(|(x, axis)| format!("sum({x}, axis={})", axis - 1)),
            (inner.clone(), 0..4).prop_map(|(x, at)| format!("({x})[{at}]")),
            (inner.clone(), inner.clone(), inner).prop_map(|(c, a, b)| format!("where({c}, {a}, {b})")),
        ]
    })
}

struct Bytes(Vec<u8>);

impl Inputs for Bytes {
    fn bytes(&self, _id: usize) -> &[u8] {
        &self.0
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_anything_panic(text in prop_oneof![anything(), formula()]) {
        let (dims, inputs) = (dims(), Bytes((0..48).collect()));
        let _ = parse_view(&text);
        let _ = parse_range(&text);
        if let Ok(expr) = parse(&text) {
            prop_assert!(expr.span.end <= text.len());
            let _ = integer(&expr, &dims);
            let _ = Scalar::bind(&expr, &dims, Place::Float).map(|scalar| scalar.eval(1));
            if let Ok(program) = compile(&expr, &dims, &dims.shape).and_then(|program| program.broadcast_to(&dims.shape)) {
                let (mut scratch, mut registers) = (program.scratch(2), program.registers());
                if program.prepare(&mut scratch, &inputs, 1, false).is_ok() {
                    let _ = program.block(&scratch, &mut registers, &inputs, 1, 0, 12);
                }
            }
        }
    }
}
