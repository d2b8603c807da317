//! The symbol of a template over a kernel's type -> the types of its parameters, as C++ spells them.
//!
//! A template argument that is a function's type stands in the symbol with all of its parameters.
//!
//! *Source*: Itanium C++ ABI, 5.1, mangling.

/// A type of a parameter.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Type {
    /// `float`, `unsigned int`, ...
    Builtin(&'static str),
    /// A type of the source or of a header, by its last name.
    Named(String),
    Const(Box<Type>),
    Pointer(Box<Type>),
    /// What is not read: a reference, an array, a function.
    Other,
}

impl std::fmt::Display for Type {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Type::Builtin(name) => f.write_str(name),
            Type::Named(name) => f.write_str(name),
            Type::Const(of) => write!(f, "const {of}"),
            Type::Pointer(to) => write!(f, "{to} *"),
            Type::Other => f.write_str("something else"),
        }
    }
}

/// The parameters in the symbol of `template_name<void (...)>`; `None` where it has another shape.
pub(super) fn parameters(symbol: &str, template_name: &str) -> Option<Vec<Type>> {
    let rest = symbol.strip_prefix("_Z")?.strip_prefix(&format!("{}{template_name}", template_name.len()))?;
    let rest = rest.strip_prefix("IFv")?;
    // The template's own name is the first thing that can be referred to.
    let mut reader = Reader { rest: rest.as_bytes(), seen: vec![Type::Other] };
    let mut types = Vec::new();
    while reader.peek()? != b'E' {
        types.push(reader.one()?);
    }
    // A list of `void` is empty.
    if types == [Type::Builtin("void")] {
        types.clear();
    }
    Some(types)
}

struct Reader<'a> {
    rest: &'a [u8],
    seen: Vec<Type>,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let is = self.peek() == Some(byte);
        if is {
            self.rest = &self.rest[1..];
        }
        is
    }

    /// A type that can be referred to later.
    fn keep(&mut self, of: Type) -> Option<Type> {
        self.seen.push(of.clone());
        Some(of)
    }

    fn one(&mut self) -> Option<Type> {
        if let Some(builtin) = self.peek().and_then(builtin) {
            self.take();
            return Some(Type::Builtin(builtin));
        }
        match self.peek()? {
            b'P' => {
                self.take();
                let to = self.one()?;
                self.keep(Type::Pointer(Box::new(to)))
            }
            b'K' => {
                self.take();
                let of = self.one()?;
                self.keep(Type::Const(Box::new(of)))
            }
            // volatile, restrict
            b'V' | b'r' => {
                self.take();
                let of = self.one()?;
                self.keep(of)
            }
            b'R' | b'O' => {
                self.take();
                self.one()?;
                self.keep(Type::Other)
            }
            b'S' => self.referred(),
            b'N' | b'0'..=b'9' => self.named(),
            _ => None,
        }
    }

    /// `S_`, `S0_`, ..., of what was seen before.
    fn referred(&mut self) -> Option<Type> {
        self.take();
        let mut index = 0usize;
        if !self.eat(b'_') {
            while !self.eat(b'_') {
                let digit = char::from(self.take().filter(|digit| !digit.is_ascii_lowercase())?).to_digit(36)? as usize;
                index = index.checked_mul(36)?.checked_add(digit)?;
            }
            index += 1;
        }
        let of = self.seen.get(index).cloned()?;
        // A template that was seen, with other arguments.
        if self.peek() == Some(b'I') { None } else { Some(of) }
    }

    fn named(&mut self) -> Option<Type> {
        if !self.eat(b'N') {
            let name = self.name()?;
            return match self.peek() {
                Some(b'I') => None,
                _ => self.keep(Type::Named(name)),
            };
        }
        let mut last = None;
        while !self.eat(b'E') {
            last = Some(self.name()?);
            // Each longer name can be referred to.
            self.seen.push(Type::Named(last.clone()?));
        }
        last.map(Type::Named)
    }

    fn name(&mut self) -> Option<String> {
        let mut len = 0usize;
        while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
            self.take();
            len = len.checked_mul(10)?.checked_add(usize::from(digit - b'0'))?;
        }
        let (name, rest) = self.rest.split_at_checked(len).filter(|(name, _)| !name.is_empty())?;
        self.rest = rest;
        String::from_utf8(name.to_vec()).ok()
    }
}

fn builtin(letter: u8) -> Option<&'static str> {
    Some(match letter {
        b'v' => "void",
        b'b' => "bool",
        b'c' => "char",
        b'a' => "signed char",
        b'h' => "unsigned char",
        b's' => "short",
        b't' => "unsigned short",
        b'i' => "int",
        b'j' => "unsigned int",
        b'l' => "long",
        b'm' => "unsigned long",
        b'x' => "long long",
        b'y' => "unsigned long long",
        b'f' => "float",
        b'd' => "double",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_from_symbols() {
        // Symbols that NVRTC 13.5 gave.
        let cases = [
            (
                "_Z12runjob_typesIFvPKfPffj4dimsP6float4ylbS1_EEvv",
                Some(
                    "const float *, float *, float, unsigned int, dims, float4 *, unsigned long long, long, bool, const float *"
                        .to_string(),
                ),
            ),
            ("_Z12runjob_typesIFvPjEEvv", Some("unsigned int *".into())),
            ("_Z12runjob_typesIFvvEEvv", Some(String::new())),
            ("_Z12runjob_typesIFvP6__halfS1_EEvv", Some("__half *, __half *".into())),
            ("_Z12runjob_typesIFvPN2ns4pairES1_EEvv", Some("pair *, pair".into())),
            ("_Z12runjob_typesIFvP5box_tIfEEEvv", None),
            ("_Z5plainPj", None),
            ("_Z12runjob_typesIFvPKfP", None),
            ("", None),
        ];
        for (symbol, want) in cases {
            let got = parameters(symbol, "runjob_types");
            let shown = got.map(|types| types.iter().map(Type::to_string).collect::<Vec<_>>().join(", "));
            assert_eq!(shown, want, "{symbol}");
        }
    }
}
