//! Entries of a map as bytes: of one whose layout is not this version's.

use std::io;
use std::os::fd::BorrowedFd;

use crate::batch::{Batch, ENTRIES, read_batch};
use crate::sys::{self, Token, Tokens};

/// A walk over the entries of a hash or a trie, some at a time. Of a hash that others write meanwhile it meets what is there all the
/// time; of a trie only if nobody else writes.
#[derive(Debug)]
pub(crate) struct RawWalk {
    key_size: usize,
    value_size: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    entries: usize,
    position: Position,
}

#[derive(Debug)]
enum Position {
    Start,
    Behind(Token),
    /// One by one: LPM tries before Linux 5.13.
    BehindKey(Option<Vec<u8>>),
    End,
}

impl RawWalk {
    /// At the first entry of a map with keys and values of these sizes, which must be the map's.
    pub(crate) const fn new(key_size: usize, value_size: usize) -> Self {
        Self {
            key_size,
            value_size,
            keys: Vec::new(),
            values: Vec::new(),
            entries: ENTRIES,
            position: Position::Start,
        }
    }

    /// Reads the next entries; `false`: there are no more.
    pub(crate) fn step(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        self.keys.clear();
        self.values.clear();
        while self.keys.is_empty() {
            match &self.position {
                Position::End => return Ok(false),
                Position::BehindKey(key) => {
                    let next = sys::next_key(fd, key.as_deref(), self.key_size)?;
                    self.position = self.read_one(fd, next)?;
                }
                Position::Start | Position::Behind(_) => self.position = self.read(fd)?,
            }
        }
        Ok(true)
    }

    /// What the last step has read: keys and values.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        // No map has keys or values without a size.
        let values = self.values.chunks_exact(self.value_size.max(1));
        self.keys.chunks_exact(self.key_size.max(1)).zip(values)
    }

    fn read(&mut self, fd: BorrowedFd<'_>) -> io::Result<Position> {
        let from = if let Position::Behind(token) = &self.position { Some(token) } else { None };
        let (key_size, value_size) = (self.key_size, self.value_size);
        let read = |tokens: Tokens<'_>, count| {
            let (keys, values) = ((&mut self.keys, key_size), (&mut self.values, value_size));
            let result = sys::lookup_batch_bytes(fd, tokens, keys, values, count);
            (self.keys.len() / key_size.max(1), result)
        };
        Ok(match read_batch(from, key_size, &mut self.entries, read)? {
            Batch::Read(next) => Position::Behind(next),
            Batch::Last => Position::End,
            Batch::Unsupported => Position::BehindKey(None),
        })
    }

    fn read_one(&mut self, fd: BorrowedFd<'_>, key: Option<Vec<u8>>) -> io::Result<Position> {
        let Some(key) = key else { return Ok(Position::End) };
        if let Some(value) = sys::lookup(fd, &key, self.value_size)? {
            self.keys.extend(&key);
            self.values.extend(value);
        }
        Ok(Position::BehindKey(Some(key)))
    }
}
