//! Layouts of map keys and values, and how the bytes of one layout become those of another.
//!
//! A member is known by its name, and means the same wherever it has that name: the rules are those of
//! `spiderpool_ebpf_common::maps`.

/// How a type lies in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    Int { size: usize, is_signed: bool },
    Enum { size: usize },
    Array { of: Box<Self>, len: usize },
    Struct { size: usize, members: Vec<Member> },
    Union { size: usize, members: Vec<Member> },
}

/// A member of a struct or union.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Its first byte.
    pub(crate) at: usize,
    pub(crate) layout: Layout,
}

impl Layout {
    /// In bytes.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Int { size, .. }
            | Self::Enum { size }
            | Self::Struct { size, .. }
            | Self::Union { size, .. } => *size,
            Self::Array { of, len } => of.size().saturating_mul(*len),
        }
    }
}

impl Member {
    /// Of no meaning, and always zero.
    fn is_padding(&self) -> bool {
        self.name.starts_with('_')
    }
}

/// A member of the new layout, or a whole map, whose value cannot be had from the old one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{member} {why}")]
pub(crate) struct Inconvertible {
    /// Its path: `nat.value.port`.
    pub(crate) member: String,
    pub(crate) why: &'static str,
}

/// Keys and values longer than this are not ours.
const LARGEST: usize = 4096;

/// Makes the bytes of one layout from those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conversion {
    from: usize,
    to: usize,
    steps: Vec<Step>,
    /// What the old layout alone has: first byte and length.
    dropped: Vec<(usize, usize)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Copy {
        from: usize,
        to: usize,
        len: usize,
    },
    /// A longer integer of the same value.
    Widen {
        from: usize,
        to: usize,
        len: usize,
        to_len: usize,
        is_signed: bool,
    },
}

impl Conversion {
    /// Between equal layouts of this size.
    pub(crate) fn identity(size: usize) -> Self {
        let mut same = Self { from: size, to: size, steps: Vec::new(), dropped: Vec::new() };
        same.copy(0, 0, size);
        same
    }

    /// From one layout to another. `name` begins the members' paths; those that are `optional` become zero where the old layout has
    /// none.
    pub(crate) fn plan(
        from: &Layout,
        to: &Layout,
        name: &str,
        optional: &[&str],
    ) -> Result<Self, Inconvertible> {
        let mut plan = Self { from: from.size(), to: to.size(), steps: Vec::new(), dropped: Vec::new() };
        if plan.from > LARGEST || plan.to > LARGEST {
            return Err(Inconvertible { member: name.to_owned(), why: "is too large" });
        }
        plan.add((from, 0), (to, 0), name, optional)?;
        Ok(plan)
    }

    /// The size of what it is made from.
    pub(crate) const fn old_size(&self) -> usize {
        self.from
    }

    /// The size of what it makes.
    pub(crate) const fn new_size(&self) -> usize {
        self.to
    }

    /// Whether nothing is left out or has another place.
    pub(crate) fn is_in_place(&self) -> bool {
        let stays = |step: &Step| matches!(step, Step::Copy { from, to, .. } if from == to);
        self.from == self.to && self.dropped.is_empty() && self.steps.iter().all(stays)
    }

    /// Converts `from` into `to`, which have the layouts' sizes.
    pub(crate) fn convert(&self, from: &[u8], to: &mut [u8]) {
        to.fill(0);
        for step in &self.steps {
            match *step {
                Step::Copy { from: at, to: into, len } => {
                    to[into..into + len].copy_from_slice(&from[at..at + len]);
                }
                Step::Widen { from: at, to: into, len, to_len, is_signed } => {
                    widen(&from[at..at + len], &mut to[into..into + to_len], is_signed);
                }
            }
        }
    }

    /// Whether what is left out of `from` says something.
    pub(crate) fn drops_any(&self, from: &[u8]) -> bool {
        self.dropped.iter().any(|&(at, len)| from[at..at + len].iter().any(|byte| *byte != 0))
    }

    fn add(
        &mut self,
        (from, from_at): (&Layout, usize),
        (to, to_at): (&Layout, usize),
        path: &str,
        optional: &[&str],
    ) -> Result<(), Inconvertible> {
        let refused = |why| Err(Inconvertible { member: path.to_owned(), why });
        if from == to {
            self.copy(from_at, to_at, to.size());
            return Ok(());
        }
        match (from, to) {
            (&Layout::Int { size: len, is_signed }, &Layout::Int { size: to_len, is_signed: to_signed }) => {
                if len == to_len {
                    self.copy(from_at, to_at, len);
                } else if len < to_len && is_signed == to_signed {
                    self.steps.push(Step::Widen { from: from_at, to: to_at, len, to_len, is_signed });
                } else {
                    return refused("is a narrower integer than in the pinned map, or has another sign");
                }
            }
            (Layout::Array { of, len }, Layout::Array { of: to_of, len: to_len }) => {
                if len != to_len {
                    return refused("is an array of another length in the pinned map");
                }
                let (size, to_size) = (of.size(), to_of.size());
                // Of elements without a size there may be any number.
                let count = if to_size == 0 { 0 } else { *len };
                for index in 0..count {
                    let (from_at, to_at) = (from_at + index * size, to_at + index * to_size);
                    self.add((of, from_at), (to_of, to_at), path, optional)?;
                }
            }
            (Layout::Struct { members, .. }, Layout::Struct { members: to_members, .. }) => {
                for member in to_members.iter().filter(|member| !member.is_padding()) {
                    let path = format!("{path}.{}", member.name);
                    match members.iter().find(|have| have.name == member.name) {
                        Some(have) => self.add(
                            (&have.layout, from_at + have.at),
                            (&member.layout, to_at + member.at),
                            &path,
                            optional,
                        )?,
                        None if optional.contains(&path.as_str()) => {}
                        None => {
                            let why = "is missing in the pinned map";
                            return Err(Inconvertible { member: path, why });
                        }
                    }
                }
                let is_dropped = |member: &&Member| {
                    !member.is_padding() && to_members.iter().all(|have| have.name != member.name)
                };
                let dropped = members.iter().filter(is_dropped);
                self.dropped.extend(dropped.map(|member| (from_at + member.at, member.layout.size())));
            }
            _ => return refused("has another type in the pinned map"),
        }
        Ok(())
    }

    /// One step more, or the last one longer.
    fn copy(&mut self, from: usize, to: usize, len: usize) {
        if let Some(Step::Copy { from: last_from, to: last_to, len: last_len }) = self.steps.last_mut()
            && *last_from + *last_len == from
            && *last_to + *last_len == to
        {
            *last_len += len;
        } else {
            self.steps.push(Step::Copy { from, to, len });
        }
    }
}

/// Writes an integer into more bytes.
fn widen(from: &[u8], to: &mut [u8], is_signed: bool) {
    let mut bytes = from.to_vec();
    if cfg!(target_endian = "big") {
        bytes.reverse();
    }
    let is_negative = is_signed && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    bytes.resize(to.len(), if is_negative { 0xff } else { 0 });
    if cfg!(target_endian = "big") {
        bytes.reverse();
    }
    to.copy_from_slice(&bytes);
}

/// How the entries of a map become those of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryConversion {
    pub(crate) key: Conversion,
    pub(crate) value: Conversion,
}

#[cfg(test)]
mod tests;
