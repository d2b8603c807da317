//! Structs that are passed by value: fields -> offsets, as a C compiler lays them out.

use std::fmt;

use serde::Serialize;

use super::Dtype;

/// A struct parameter: `struct tag { u32 n, f32x4 scale } p`.
///
/// Laid out as in C: each field at the next multiple of its alignment, the size a multiple of the largest of them. A
/// field is aligned to its size, at most 64 bytes, which is what `runjob.h` gives vectors; three lanes are three
/// elements side by side, aligned as one.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Struct {
    /// The name after `struct`.
    pub tag: Option<String>,
    /// In order of offsets.
    pub fields: Vec<Field>,
    /// *Units*: bytes.
    pub size: u64,
    /// *Units*: bytes.
    pub align: u64,
}

/// One field of a [`Struct`].
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Field {
    pub name: String,
    pub dtype: Dtype,
    /// 1, 2, 3, 4, 8 or 16.
    pub lanes: u32,
    /// *Units*: bytes from the start of the struct.
    pub offset: u64,
}

impl Struct {
    /// Lays out fields of these names, dtypes and lanes.
    pub fn new(tag: Option<String>, fields: impl IntoIterator<Item = (String, Dtype, u32)>) -> Struct {
        let (mut end, mut largest) = (0u64, 1u64);
        let fields = fields.into_iter().map(|(name, dtype, lanes)| {
            let bytes = dtype.size() as u64 * u64::from(lanes);
            let align = if lanes == 3 { dtype.size() as u64 } else { bytes.min(64) };
            let offset = end.next_multiple_of(align);
            end = offset + bytes;
            largest = largest.max(align);
            Field { name, dtype, lanes, offset }
        });
        let fields: Vec<Field> = fields.collect();
        Struct { tag, fields, size: end.next_multiple_of(largest), align: largest }
    }

    /// Where each value of an argument goes: one per field and lane, in order. *Units*: bytes from the start.
    pub fn places(&self) -> impl Iterator<Item = (u64, Dtype)> + '_ {
        self.fields.iter().flat_map(|f| (0..u64::from(f.lanes)).map(|lane| (f.offset + lane * f.dtype.size() as u64, f.dtype)))
    }
}

impl fmt::Display for Struct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("struct ")?;
        if let Some(tag) = &self.tag {
            write!(f, "{tag} ")?;
        }
        let fields: Vec<String> = self.fields.iter().map(|f| format!("{} {}", type_name(f.dtype, f.lanes), f.name)).collect();
        write!(f, "{{ {} }}", fields.join(", "))
    }
}

/// A dtype with its lanes: `f32`, `f32x4`.
pub fn type_name(dtype: Dtype, lanes: u32) -> String {
    if lanes == 1 { dtype.to_string() } else { format!("{dtype}x{lanes}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_at_the_next_multiple_of_their_alignment() {
        use Dtype::*;
        type Case<'a> = (&'a [(Dtype, u32)], &'a [u64], u64, u64);
        let cases: [Case<'_>; 8] = [
            (&[(U32, 1), (F32, 1)], &[0, 4], 8, 4),
            (&[(U8, 1), (U64, 1), (U8, 1)], &[0, 8, 16], 24, 8),
            (&[(Bool, 1), (F16, 1), (I8, 1), (I32, 1)], &[0, 2, 4, 8], 12, 4),
            (&[(F32, 3), (F32, 1)], &[0, 12], 16, 4),
            (&[(F32, 1), (F32, 4)], &[0, 16], 32, 16),
            (&[(U8, 1), (F64, 16), (U8, 1)], &[0, 64, 192], 256, 64),
            (&[(U8, 2), (U8, 16), (U16, 3)], &[0, 16, 32], 48, 16),
            (&[(U8, 3)], &[0], 3, 1),
        ];
        for (fields, offsets, size, align) in cases {
            let layout = Struct::new(None, fields.iter().enumerate().map(|(i, &(dtype, lanes))| (format!("f{i}"), dtype, lanes)));
            assert_eq!(layout.fields.iter().map(|f| f.offset).collect::<Vec<_>>(), offsets, "{layout}");
            assert_eq!((layout.size, layout.align), (size, align), "{layout}");
        }
    }

    #[test]
    fn every_lane_has_its_place() {
        let layout = Struct::new(None, [("a".into(), Dtype::U8, 1), ("b".into(), Dtype::F32, 3)]);
        let places: Vec<_> = layout.places().collect();
        assert_eq!(places, [(0, Dtype::U8), (4, Dtype::F32), (8, Dtype::F32), (12, Dtype::F32)]);
    }
}
