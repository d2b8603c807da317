//! Turns a NumPy array file into shape and bytes, and back.
//!
//! *Source*: `numpy.lib.format`, versions 1.0, 2.0 and 3.0. The header is parsed here: a Python dict with the keys `descr`,
//! `fortran_order` and `shape`. Whatever the file holds, the answer is an array or an error, never a panic.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use thiserror::Error;

use super::map::Map;
use crate::tensor::{Dtype, Shape};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read. *Units*: bytes. The header of an array that a tensor can take has a few hundred.
const LONGEST: u64 = 1 << 20;

/// An array file: row-major, little-endian, its bytes mapped.
#[derive(Debug)]
pub struct Npy {
    map: Map,
    descr: String,
    shape: Shape,
    data: Range<usize>,
}

/// Why a file is no array that can be used.
#[derive(Debug, Error)]
pub enum NpyError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not a .npy file: it starts with {found}, not with \\x93NUMPY")]
    Magic { found: String },
    #[error("the header is cut short: it needs {need} bytes, the file has {have}")]
    Truncated { need: u64, have: u64 },
    #[error("version {0}.{1} of the format is not known, 1.0, 2.0 and 3.0 are")]
    Version(u8, u8),
    #[error("the header is not `{{'descr': ..., 'fortran_order': ..., 'shape': ...}}`: {0}")]
    Header(String),
    #[error("the header has {0} bytes, an array's has a few hundred: the file is damaged, save the array again")]
    LongHeader(u64),
    #[error(
        "dtype `{0}` cannot be a tensor's; save the array as float64, float32, float16, an int or uint of 8 to 64 bits, bool, \
         or as bfloat16, float8_e4m3fn or float8_e5m2 of ml_dtypes"
    )]
    Dtype(String),
    #[error("dtype `{descr}` is big-endian; save `np.ascontiguousarray(a.astype('{mend}'))`")]
    BigEndian { descr: String, mend: String },
    #[error("the array is in Fortran order; save `np.ascontiguousarray(a.astype('{0}'))`")]
    Fortran(String),
    #[error("{0}")]
    Shape(String),
    #[error("the header says shape {shape} of {dtype}, {need} bytes, the file has {have} after its header")]
    Length { shape: Shape, dtype: String, need: u64, have: u64 },
}

impl Npy {
    /// Maps a file and reads its header.
    ///
    /// *Errors*: a file that cannot be read or is no array in C order and little-endian, with as many bytes as it says.
    pub fn open(path: impl AsRef<Path>) -> Result<Npy, NpyError> {
        let map = Map::open(path.as_ref())?;
        let (descr, shape, data) = parse(map.bytes())?;
        Ok(Npy { map, descr, shape, data })
    }

    /// The dtype of the elements in words: `f32`, or for bytes whose meaning the file does not say `raw 2-byte elements`.
    pub fn describe_dtype(&self) -> String {
        described(&self.descr)
    }

    /// Whether the file's elements can be taken for this dtype. NumPy has no bf16 and no 8-bit floats: arrays of
    /// ml_dtypes are saved as raw bytes, `V2` and `V1`; unsigned integers of the size stand for them too.
    pub fn dtype_matches(&self, dtype: Dtype) -> bool {
        let kind = kind(&self.descr);
        kind == code(dtype)
            || match dtype {
                Dtype::Bf16 => kind == "u2",
                Dtype::F8e4m3 | Dtype::F8e5m2 => kind == "u1",
                _ => false,
            }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The elements: row-major, little-endian.
    pub fn bytes(&self) -> &[u8] {
        // `parse` made the range from this length.
        &self.map.bytes()[self.data.clone()]
    }
}

/// Writes an array file: into a temporary file beside it, which then takes its name. What NumPy has no dtype for is written
/// as ml_dtypes does, as raw bytes.
///
/// *Errors*: what the file system says, and bytes that are not the shape's.
pub fn write(path: impl AsRef<Path>, dtype: Dtype, shape: &Shape, bytes: &[u8]) -> io::Result<()> {
    let path = path.as_ref();
    if bytes.len() as u64 != shape.bytes(dtype) {
        let message = format!("shape {shape} of {dtype} needs {} bytes, not {}", shape.bytes(dtype), bytes.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&header(dtype, shape))?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// The type code of a dtype without its byte order.
fn code(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f8",
        Dtype::F32 => "f4",
        Dtype::F16 => "f2",
        Dtype::Bf16 => "V2",
        Dtype::F8e4m3 | Dtype::F8e5m2 => "V1",
        Dtype::I64 => "i8",
        Dtype::I32 => "i4",
        Dtype::I16 => "i2",
        Dtype::I8 => "i1",
        Dtype::U64 => "u8",
        Dtype::U32 => "u4",
        Dtype::U16 => "u2",
        Dtype::U8 => "u1",
        Dtype::Bool => "b1",
    }
}

/// A type code without its byte order.
fn kind(descr: &str) -> &str {
    descr.trim_start_matches(['<', '|', '='])
}

fn described(descr: &str) -> String {
    let kind = kind(descr);
    match Dtype::ALL.into_iter().find(|dtype| code(*dtype) == kind) {
        Some(dtype) if !kind.starts_with('V') => dtype.name().to_string(),
        Some(dtype) => format!("raw {}-byte elements (`{descr}`)", dtype.size()),
        None => format!("`{descr}`"),
    }
}

fn header(dtype: Dtype, shape: &Shape) -> Vec<u8> {
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let mut dims: String = shape.dims().iter().map(|d| format!("{d}, ")).collect();
    if shape.rank() > 1 {
        dims.truncate(dims.len() - 2);
    }
    let dims = dims.trim_end();
    let mut text = format!("{{'descr': '{order}{}', 'fortran_order': False, 'shape': ({dims}), }}", code(dtype));
    // Magic, version and length take 10 bytes; the elements start at a multiple of 64.
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    // 2^16 bytes hold shapes of some 3,000 dimensions; no tensor has them.
    bytes.extend([1, 0, text.len() as u8, (text.len() >> 8) as u8]);
    bytes.extend(text.as_bytes());
    bytes
}

fn parse(file: &[u8]) -> Result<(String, Shape, Range<usize>), NpyError> {
    if !file.starts_with(MAGIC) {
        let found = file[..file.len().min(6)].escape_ascii().to_string();
        let found = if file.is_empty() { "nothing: it is empty".into() } else { format!("`{found}`") };
        return Err(NpyError::Magic { found });
    }
    let truncated = |need: u64| NpyError::Truncated { need, have: file.len() as u64 };
    let &[major, minor] = file[6..].first_chunk().ok_or(truncated(10))?;
    let (start, length) = match (major, minor) {
        (1, 0) => {
            let bytes: &[u8; 2] = file[8..].first_chunk().ok_or(truncated(10))?;
            (10, u64::from(u16::from_le_bytes(*bytes)))
        }
        (2 | 3, 0) => {
            let bytes: &[u8; 4] = file[8..].first_chunk().ok_or(truncated(12))?;
            (12, u64::from(u32::from_le_bytes(*bytes)))
        }
        _ => return Err(NpyError::Version(major, minor)),
    };
    if length > LONGEST {
        return Err(NpyError::LongHeader(length));
    }
    let end = start as u64 + length;
    if end > file.len() as u64 {
        return Err(truncated(end));
    }
    let data = end as usize..file.len();
    let text = std::str::from_utf8(&file[start..data.start]).map_err(|_| NpyError::Header("it is not text".into()))?;
    let header = Dict::parse(text).map_err(NpyError::Header)?;
    let size = element_size(&header.descr)?;
    if header.fortran && header.shape.len() > 1 {
        return Err(NpyError::Fortran(header.descr));
    }
    let shape = Shape::new(header.shape).map_err(|e| NpyError::Shape(e.to_string()))?;
    // At most 2^40 elements of 8 bytes.
    let need = shape.elements() * size;
    let have = data.len() as u64;
    if need != have {
        return Err(NpyError::Length { shape, dtype: described(&header.descr), need, have });
    }
    Ok((header.descr, shape, data))
}

/// Bytes of one element. *Errors*: a type that no tensor has, and big-endian.
fn element_size(descr: &str) -> Result<u64, NpyError> {
    let refused = || NpyError::Dtype(descr.to_string());
    let order = descr.chars().next().ok_or_else(refused)?;
    let kind = &descr[order.len_utf8()..];
    let dtype = Dtype::ALL.into_iter().find(|&dtype| code(dtype) == kind).ok_or_else(refused)?;
    match order {
        '<' | '|' | '=' => Ok(dtype.size() as u64),
        '>' => Err(NpyError::BigEndian { descr: descr.to_string(), mend: format!("<{kind}") }),
        _ => Err(refused()),
    }
}

/// The header's three entries.
struct Dict {
    descr: String,
    fortran: bool,
    shape: Vec<u64>,
}

impl Dict {
    fn parse(text: &str) -> Result<Dict, String> {
        let mut rest = Rest(text);
        let (mut descr, mut fortran, mut shape) = (None, None, None);
        rest.expect("{")?;
        while !rest.eat("}") {
            let key = rest.string()?;
            rest.expect(":")?;
            match key {
                "descr" if rest.peek("[") => return Err("a structured dtype".into()),
                "descr" => descr = Some(rest.string()?.to_string()),
                "fortran_order" => fortran = Some(rest.boolean()?),
                "shape" => shape = Some(rest.tuple()?),
                _ => return Err(format!("`{key}` is not known")),
            }
            if !rest.eat(",") {
                rest.expect("}")?;
                break;
            }
        }
        let lacks = |key: &str| format!("it lacks `{key}`");
        Ok(Dict {
            descr: descr.ok_or_else(|| lacks("descr"))?,
            fortran: fortran.ok_or_else(|| lacks("fortran_order"))?,
            shape: shape.ok_or_else(|| lacks("shape"))?,
        })
    }
}

/// The part of a header that is not read yet.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn peek(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        self.0.starts_with(token)
    }

    fn eat(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.eat(token) { Ok(()) } else { Err(self.found(&format!("`{token}`"))) }
    }

    fn found(&self, wanted: &str) -> String {
        let word: String = self.0.chars().take(12).collect();
        format!("{wanted} expected, `{}` found", word.escape_debug())
    }

    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.eat("'") {
            '\''
        } else if self.eat("\"") {
            '"'
        } else {
            return Err(self.found("a string"));
        };
        let (text, rest) = self.0.split_once(quote).ok_or_else(|| format!("a string lacks its {quote}"))?;
        self.0 = rest;
        Ok(text)
    }

    fn boolean(&mut self) -> Result<bool, String> {
        if self.eat("True") {
            Ok(true)
        } else if self.eat("False") {
            Ok(false)
        } else {
            Err(self.found("`True` or `False`"))
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut dims = Vec::new();
        self.expect("(")?;
        while !self.eat(")") {
            dims.push(self.integer()?);
            if !self.eat(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(dims)
    }

    fn integer(&mut self) -> Result<u64, String> {
        self.0 = self.0.trim_start();
        let end = self.0.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at(end);
        if digits.is_empty() {
            return Err(self.found("a dimension"));
        }
        // Python 2 wrote dimensions as `3L`.
        self.0 = rest.strip_prefix('L').unwrap_or(rest);
        digits.parse().map_err(|_| format!("dimension {digits} is beyond 2^64"))
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
