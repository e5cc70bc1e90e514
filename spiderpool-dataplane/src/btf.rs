//! Reads the layout of a type out of a BTF blob.
//!
//! Only what map keys and values are made of: integers, arrays, structs, unions, enums, typedefs.

use crate::layout::{Layout, Member};

/// The blob is shorter than it says, or has a kind this does not know, or a type that is too large.
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
/// Set in an integer's encoding.
const SIGNED: u32 = 1;
/// How deep types may be nested.
const DEPTH: u32 = 16;
/// How many types one may be made of, each counted as often as it is met. The largest of ours, the counters, has about 150.
const MOST_TYPES: usize = 4096;

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
            let start = header.checked_add(off as usize).ok_or(Unreadable)?;
            blob.get(start..start.checked_add(len as usize).ok_or(Unreadable)?).ok_or(Unreadable)
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

    /// The type's layout; typedefs and qualifiers are seen through.
    pub(crate) fn layout(&self, id: u32) -> Result<Layout, Unreadable> {
        let mut left = MOST_TYPES;
        self.layout_within(id, DEPTH, &mut left)
    }

    fn layout_within(&self, id: u32, depth: u32, left: &mut usize) -> Result<Layout, Unreadable> {
        let ty = self.types.get(id as usize).ok_or(Unreadable)?;
        if depth == 0 || ty.is_empty() {
            return Err(Unreadable);
        }
        *left = left.checked_sub(1).ok_or(Unreadable)?;
        let (info, size) = (word(ty, 1)?, word(ty, 2)?);
        match (info >> 24) & 0x1f {
            KIND_INT => Self::int(size as usize, word(ty, 3)?),
            KIND_ENUM => Ok(Layout::Enum { size: size as usize }),
            KIND_ARRAY => {
                let of = self.layout_within(word(ty, 3)?, depth - 1, left)?;
                let len = word(ty, 5)? as usize;
                of.size().checked_mul(len).ok_or(Unreadable)?;
                Ok(Layout::Array { of: Box::new(of), len })
            }
            KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST | KIND_RESTRICT => {
                self.layout_within(size, depth - 1, left)
            }
            kind @ (KIND_STRUCT | KIND_UNION) => {
                let size = size as usize;
                let members = (0..(info & 0xffff) as usize)
                    .map(|member| self.member(ty, member, size, depth, left))
                    .collect::<Result<_, _>>()?;
                Ok(if kind == KIND_STRUCT {
                    Layout::Struct { size, members }
                } else {
                    Layout::Union { size, members }
                })
            }
            _ => Err(Unreadable),
        }
    }

    /// An integer that is as long as its bytes.
    fn int(size: usize, encoding: u32) -> Result<Layout, Unreadable> {
        let (bits, offset) = ((encoding & 0xff) as usize, (encoding >> 16) & 0xff);
        if bits != size * 8 || offset != 0 {
            return Err(Unreadable);
        }
        Ok(Layout::Int { size, is_signed: (encoding >> 24) & SIGNED != 0 })
    }

    /// A member of a struct or union of this size, which lies within it, at a byte.
    fn member(
        &self,
        ty: &[u8],
        member: usize,
        size: usize,
        depth: u32,
        left: &mut usize,
    ) -> Result<Member, Unreadable> {
        let at = 3 + 3 * member;
        let (name, bit) = (self.name(word(ty, at)?)?.to_owned(), word(ty, at + 2)? as usize);
        let layout = self.layout_within(word(ty, at + 1)?, depth - 1, left)?;
        let end = (bit / 8).checked_add(layout.size()).ok_or(Unreadable)?;
        if bit % 8 != 0 || end > size {
            return Err(Unreadable); // a bit field, or nonsense
        }
        Ok(Member { name, at: bit / 8, layout })
    }
}

#[cfg(test)]
mod tests;
