//! Describes a type of a BTF blob as text, so that two layouts can be compared whatever their type ids are.
//!
//! Only what map keys and values are made of: integers, arrays, structs, unions, enums, typedefs.

use std::fmt::Write as _;

/// The blob is shorter than it says, or has a kind this does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// A parsed blob: where each type starts, and the strings.
pub(crate) struct Btf<'a> {
    types: Vec<&'a [u8]>,
    strings: &'a [u8],
}

const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_RESTRICT: u32 = 11;

fn word(bytes: &[u8], index: usize) -> Result<u32, Unreadable> {
    let at = index * 4;
    let b = bytes.get(at..at + 4).ok_or(Unreadable)?;
    Ok(u32::from_ne_bytes([b[0], b[1], b[2], b[3]]))
}

/// Words that follow the three common ones, by kind and number of members.
fn extra_words(kind: u32, members: usize) -> Result<usize, Unreadable> {
    Ok(match kind {
        KIND_INT | 14 | 17 => 1, // int, var, decl_tag
        KIND_ARRAY => 3,
        KIND_STRUCT | KIND_UNION | 15 | 19 => 3 * members, // also datasec, enum64
        KIND_ENUM | 13 => 2 * members,                     // also func_proto
        KIND_PTR | KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT | 7 | 12 | 16 | 18 => 0,
        _ => return Err(Unreadable),
    })
}

impl<'a> Btf<'a> {
    /// Reads the header and finds the types.
    pub(crate) fn parse(blob: &'a [u8]) -> Result<Self, Unreadable> {
        let header = word(blob, 1)? as usize;
        let section = |off: u32, len: u32| {
            let start = header + off as usize;
            blob.get(start..start + len as usize).ok_or(Unreadable)
        };
        let mut rest = section(word(blob, 2)?, word(blob, 3)?)?;
        let strings = section(word(blob, 4)?, word(blob, 5)?)?;
        let mut types = vec![&blob[..0]];
        while !rest.is_empty() {
            let info = word(rest, 1)?;
            let words = 3 + extra_words((info >> 24) & 0x1f, (info & 0xffff) as usize)?;
            types.push(rest.get(..words * 4).ok_or(Unreadable)?);
            rest = &rest[words * 4..];
        }
        Ok(Self { types, strings })
    }

    fn name(&self, offset: u32) -> Result<&'a str, Unreadable> {
        let tail = self.strings.get(offset as usize..).ok_or(Unreadable)?;
        let end = tail.iter().position(|&b| b == 0).ok_or(Unreadable)?;
        std::str::from_utf8(&tail[..end]).map_err(|_| Unreadable)
    }

    /// The type as text: sizes, field names and offsets; typedefs and qualifiers are seen through.
    pub(crate) fn describe(&self, id: u32) -> Result<String, Unreadable> {
        self.describe_within(id, 16)
    }

    fn describe_within(&self, id: u32, depth: u32) -> Result<String, Unreadable> {
        let ty = self.types.get(id as usize).ok_or(Unreadable)?;
        if depth == 0 || ty.is_empty() {
            return Err(Unreadable);
        }
        let (info, size) = (word(ty, 1)?, word(ty, 2)?);
        match (info >> 24) & 0x1f {
            KIND_INT => Ok(format!("int{}", size * 8)),
            KIND_ENUM => Ok(format!("enum{}", size * 8)),
            KIND_ARRAY => {
                Ok(format!("[{}; {}]", self.describe_within(word(ty, 3)?, depth - 1)?, word(ty, 5)?))
            }
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT => {
                self.describe_within(size, depth - 1)
            }
            KIND_STRUCT | KIND_UNION => {
                let mut out = format!("{size} bytes {{");
                for member in 0..(info & 0xffff) as usize {
                    let at = 3 + 3 * member;
                    let (name, ty_id, bit) = (word(ty, at)?, word(ty, at + 1)?, word(ty, at + 2)?);
                    let inner = self.describe_within(ty_id, depth - 1)?;
                    let _ = write!(out, " {}@{bit}: {inner},", self.name(name)?);
                }
                out.push_str(" }");
                Ok(out)
            }
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Btf, Unreadable};

    /// int u32; struct { a: u32 @0, b: [u32; 2] @32 }.
    fn sample() -> Vec<u8> {
        let strings = b"\0u32\0pair\0a\0b\0";
        let types: &[u32] = &[
            1,
            1 << 24,
            4,
            32, // 1: int
            0,
            3 << 24,
            0,
            1,
            1,
            2, // 2: array
            5,
            4 << 24 | 2,
            12,
            10,
            1,
            0,
            12,
            2,
            32, // 3: struct
            0,
            8 << 24,
            3, // 4: typedef
        ];
        let mut blob: Vec<u8> = Vec::new();
        let words =
            [0x0001_eb9f, 24, 0, types.len() as u32 * 4, types.len() as u32 * 4, strings.len() as u32];
        for w in words.iter().chain(types) {
            blob.extend(w.to_ne_bytes());
        }
        blob.extend(strings);
        blob
    }

    #[test]
    fn describes_fields_and_offsets() {
        let blob = sample();
        let btf = Btf::parse(&blob).unwrap();
        let want = "12 bytes { a@0: int32, b@32: [int32; 2], }";
        assert_eq!(btf.describe(3).as_deref(), Ok(want));
        assert_eq!(btf.describe(4).as_deref(), Ok(want), "a typedef is seen through");
    }

    #[test]
    fn truncated_blobs_are_refused() {
        let blob = sample();
        for len in 0..blob.len() {
            assert_eq!(Btf::parse(&blob[..len]).map(|_| ()), Err(Unreadable), "{len} bytes");
        }
        assert_eq!(Btf::parse(&blob).unwrap().describe(9), Err(Unreadable));
    }
}
