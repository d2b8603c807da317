//! Turns the elements that failed into words for what they have in common: where they lie and what they hold.
//!
//! Runs on failure only. What is said holds of all elements that it names; where that is not all that failed, it says how many.

use super::region;
use crate::tensor::{Dtype, Number, Shape, rows};

/// What is known of an output that failed. All slices are whole tensors, row-major and little-endian.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    pub dtype: Dtype,
    pub shape: &'a Shape,
    /// Per element: whether it failed its check.
    pub wrong: &'a [bool],
    /// Whether all elements were compared; what was not counts as right.
    pub all: bool,
    pub got: &'a [u8],
    /// Rounded to the dtype.
    pub want: &'a [u8],
    /// The word that filled the output before the round, repeated from the tensor's first byte.
    pub poison: Option<u32>,
    /// It lay in rows of three that were spaced by four when it was poisoned.
    pub spaced: bool,
    /// An earlier round, and the output's bytes after it.
    pub previous: Option<(u64, &'a [u8])>,
    /// Elements that one block of the kernel covers along the fastest dimension.
    pub block: Option<u64>,
}

/// Sentences, the most telling first, that [`describe`] returns.
const MOST: usize = 4;

/// Says what the failed elements have in common: at most four sentences, the most telling first.
///
/// *Panics* when the slices have not the shape's size.
pub fn describe(evidence: &Evidence<'_>) -> Vec<String> {
    let elements = evidence.shape.elements() as usize;
    assert_eq!(evidence.wrong.len(), elements, "flags of {elements} elements");
    for bytes in [evidence.got, evidence.want].into_iter().chain(evidence.previous.map(|(_, bytes)| bytes)) {
        assert_eq!(bytes.len(), elements * evidence.dtype.size(), "bytes of {elements} elements");
    }
    let wrong: Vec<usize> = (0..elements).filter(|&i| evidence.wrong[i]).collect();
    if wrong.is_empty() {
        return Vec::new();
    }
    let (unwritten, written): (Vec<usize>, Vec<usize>) = wrong.iter().partition(|&&i| evidence.is_poison(i));
    // One byte is the poison's by chance once in 256: a few among many say nothing.
    let by_chance = evidence.dtype.size() == 1 && unwritten.len() * 8 < wrong.len();
    // The poison of f8e4m3 is its NaNs, both in turn: one who writes NaN writes as many that are not the poison.
    let own_nan = || written.iter().filter(|&&i| evidence.got(i).is_nan()).count();
    let by_chance = by_chance || evidence.dtype == Dtype::F8e4m3 && own_nan() * 4 > unwritten.len();
    let (unwritten, written) = if by_chance { (Vec::new(), wrong.clone()) } else { (unwritten, written) };
    let found = Found { evidence, wrong: &wrong, unwritten: &unwritten, written: &written };

    let sentences = [
        found.never_written(),
        found.last_block(),
        found.transposed(),
        found.shifted(1),
        found.shifted(-1),
        found.zeros(),
        found.stale(),
        found.nan(),
        found.negated(),
        found.offset(),
        found.scaled(),
        found.lies(),
    ];
    sentences.into_iter().flatten().take(MOST).collect()
}

impl Evidence<'_> {
    fn got(&self, i: usize) -> Number {
        self.dtype.decode(self.dtype.load(self.got, i))
    }

    fn want(&self, i: usize) -> Number {
        self.dtype.decode(self.dtype.load(self.want, i))
    }

    fn is_poison(&self, i: usize) -> bool {
        let Some(poison) = self.poison else { return false };
        let size = self.dtype.size();
        let word = poison.to_le_bytes();
        let place = if self.spaced { rows::spaced_place(i as u64) as usize } else { i };
        self.got[i * size..(i + 1) * size].iter().enumerate().all(|(k, byte)| *byte == word[(place * size + k) % 4])
    }

    /// Whether two values are the same but for rounding.
    fn near(&self, a: Number, b: Number) -> bool {
        let rounding = match self.dtype {
            Dtype::F64 => 1e-9,
            Dtype::F32 => 1e-5,
            Dtype::F16 => 2e-3,
            Dtype::Bf16 => 1.6e-2,
            _ => return a == b,
        };
        let (a, b) = (a.to_f64(), b.to_f64());
        a == b || (a - b).abs() <= rounding * a.abs().max(b.abs()) && a.is_finite() && b.is_finite()
    }
}

struct Found<'a> {
    evidence: &'a Evidence<'a>,
    wrong: &'a [usize],
    /// Wrong, and still the poison.
    unwritten: &'a [usize],
    /// Wrong, and something else.
    written: &'a [usize],
}

impl Found<'_> {
    /// "all 20 wrong elements" or "17 of 20 wrong elements".
    fn share(&self, count: usize) -> String {
        match (count, self.wrong.len()) {
            (1, 1) => "the only wrong element".into(),
            (count, all) if count == all => format!("all {all} wrong elements"),
            (count, all) => format!("{count} of {all} wrong elements"),
        }
    }

    /// Whether every wrong element that was written holds `value(i)` but for rounding, and is clearly not what it must be.
    ///
    /// Fewer than two elements are no pattern.
    fn all_are(&self, value: impl Fn(usize) -> Option<Number>) -> bool {
        let e = self.evidence;
        self.written.len() >= 2
            && self.written.iter().all(|&i| value(i).is_some_and(|value| e.near(e.got(i), value) && !e.near(e.got(i), e.want(i))))
    }

    fn never_written(&self) -> Option<String> {
        let region = region::name(self.evidence.shape, self.unwritten);
        match (region, self.unwritten.len()) {
            (_, 0) => None,
            (Some(region), _) => Some(region.then("was never written", "were never written")),
            (None, count) => Some(format!("{} were never written", self.share(count))),
        }
    }

    fn last_block(&self) -> Option<String> {
        let block = self.evidence.block?;
        let &width = self.evidence.shape.dims().last()?;
        if block == 0 || width < block || width.is_multiple_of(block) {
            return None;
        }
        let column = |i: usize| i as u64 % width;
        let (low, high) = self.wrong.iter().fold((width, 0), |(low, high), &i| (low.min(column(i)), high.max(column(i))));
        if low < width - width % block {
            return None;
        }
        let what = if self.evidence.shape.rank() == 1 { "element" } else { "column" };
        let place = if low == high { format!("{what} {low}") } else { format!("{what}s {low}-{high}") };
        Some(format!("{place}: the last, partial block of {block}"))
    }

    fn transposed(&self) -> Option<String> {
        let e = self.evidence;
        let &[rows, columns] = e.shape.dims() else { return None };
        let side = rows as usize;
        let mirror = |i: usize| Some(e.want(i % side * side + i / side));
        (rows == columns && self.all_are(mirror))
            .then(|| format!("got[r, c] = want[c, r] in {}: transposed", self.share(self.written.len())))
    }

    fn shifted(&self, by: isize) -> Option<String> {
        let e = self.evidence;
        let end = e.wrong.len();
        let source = |i: usize| i.checked_add_signed(by).filter(|&j| j < end);
        // The element that has no neighbour may hold anything.
        let inner: Vec<usize> = self.written.iter().copied().filter(|&i| source(i).is_some()).collect();
        let inner = Found { written: &inner, ..*self };
        if !inner.all_are(|i| source(i).map(|j| e.want(j))) {
            return None;
        }
        let throughout = (0..end).all(|i| source(i).is_none_or(|j| e.near(e.got(i), e.want(j))));
        let extent = if throughout { "throughout".into() } else { format!("in {}", self.share(inner.written.len())) };
        Some(format!("got[i] = want[i{by:+}] {extent}: shifted by one element"))
    }

    fn zeros(&self) -> Option<String> {
        let zero = self.written.iter().filter(|&&i| self.evidence.got(i).to_f64() == 0.0).count();
        // Few zeros among many others are no pattern.
        (zero * 2 > self.wrong.len()).then(|| format!("{} {} 0", self.share(zero), are(zero)))
    }

    fn stale(&self) -> Option<String> {
        let e = self.evidence;
        let (round, previous) = e.previous?;
        let constant = self.written.windows(2).all(|pair| e.dtype.load(e.got, pair[0]) == e.dtype.load(e.got, pair[1]));
        let same = |&&i: &&usize| e.dtype.load(e.got, i) == e.dtype.load(previous, i);
        let stale = self.written.iter().filter(same).count();
        // One value everywhere is as likely the kernel's own; a few equal elements are chance.
        if stale < 2 || constant || stale * 2 <= self.wrong.len() {
            return None;
        }
        if e.got == previous {
            return Some(format!("the output holds the bytes of round {round}"));
        }
        let verb = if stale == 1 { "holds" } else { "hold" };
        Some(format!("{} {verb} the bytes of round {round}", self.share(stale)))
    }

    fn nan(&self) -> Option<String> {
        let nan = self.written.iter().filter(|&&i| self.evidence.got(i).is_nan()).count();
        (nan > 0).then(|| format!("{} {} NaN", self.share(nan), are(nan)))
    }

    fn negated(&self) -> Option<String> {
        let negative = |i: usize| match self.evidence.want(i) {
            Number::Int(want) => Number::Int(-want),
            Number::Float(want) => Number::Float(-want),
        };
        self.all_are(|i| Some(negative(i))).then(|| format!("got = -want in {}", self.share(self.written.len())))
    }

    fn offset(&self) -> Option<String> {
        let e = self.evidence;
        let difference = |i: usize| Some(e.got(i).to_integer()? - e.want(i).to_integer()?);
        if e.dtype.is_float() || e.dtype == Dtype::Bool || self.written.len() < 2 {
            return None;
        }
        let by = difference(self.written[0])?;
        if !self.written.iter().all(|&i| difference(i) == Some(by)) {
            return None;
        }
        let sign = if by < 0 { '-' } else { '+' };
        Some(format!("got = want {sign} {} in {}", by.unsigned_abs(), self.share(self.written.len())))
    }

    fn scaled(&self) -> Option<String> {
        let e = self.evidence;
        let want = |i: usize| e.want(i).to_f64();
        let largest =
            self.written.iter().copied().filter(|&i| want(i).is_finite()).max_by(|&a, &b| want(a).abs().total_cmp(&want(b).abs()))?;
        let factor = e.got(largest).to_f64() / want(largest);
        // Any two numbers have a ratio: it takes a second value, clearly different from the first.
        let varied = self.written.iter().any(|&i| want(i) != 0.0 && want(i).abs() < 0.9 * want(largest).abs());
        if !factor.is_finite() || factor == 0.0 || self.written.len() < 3 || !varied {
            return None;
        }
        let product = |i: usize| {
            let product = factor * want(i);
            Some(if e.dtype.is_float() { Number::Float(product) } else { Number::Int(Number::Float(product).to_integer()?) })
        };
        let rounded = if (factor - factor.round()).abs() < 1e-5 * factor.abs() { factor.round() } else { factor };
        let rounded = Number::Float((rounded * 1e6).round() / 1e6);
        // Minus one has a sentence of its own.
        let telling = rounded != Number::Float(-1.0) && rounded != Number::Float(0.0);
        (telling && self.all_are(product)).then(|| format!("got = {rounded} * want in {}", self.share(self.written.len())))
    }

    fn lies(&self) -> Option<String> {
        if self.unwritten.len() == self.wrong.len() {
            // "never written" has named them.
            return None;
        }
        let region = region::name(self.evidence.shape, self.wrong)?;
        let rest = if !self.evidence.all || self.wrong.len() == self.evidence.wrong.len() { "" } else { ", and no other" };
        Some(region.then("is wrong", "are wrong") + rest)
    }
}

fn are(count: usize) -> &'static str {
    if count == 1 { "is" } else { "are" }
}

#[cfg(test)]
#[path = "pattern_tests.rs"]
mod tests;
