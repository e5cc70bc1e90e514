//! Many entries of a map by one system call (`BPF_MAP_LOOKUP_BATCH`, `BPF_MAP_DELETE_BATCH`: include/uapi/linux/bpf.h, hash maps and
//! arrays since Linux 5.6, LPM tries since 5.13), and one by one where kernel or map has no such operation.

use std::io;
use std::os::fd::AsFd as _;

use aya::Pod;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, IterableMap, MapData, MapError};
use nix::libc;

use crate::error::ignore_missing;
use crate::sys::{self, Token, Tokens};

/// How many entries are read or deleted at once.
pub(crate) const ENTRIES: usize = 1024;
/// A hash gives whole buckets only. They have a few entries; that one has more than this says that something else is wrong.
const LARGEST_BUCKET: usize = 64 * ENTRIES;
/// How often a call that was interrupted before it has read or deleted anything is made again.
const ATTEMPTS: usize = 16;
/// `BPF_NOEXIST` of linux/bpf.h.
pub(crate) const NO_EXIST: u64 = 1;
/// `BPF_EXIST` of linux/bpf.h.
pub(crate) const EXIST: u64 = 2;

/// A map whose entries can be listed.
pub(crate) trait Listed<K: Pod, V: Pod>: IterableMap<K, V> {
    /// All keys, read one by one.
    fn all_keys(&self) -> Result<Vec<K>, MapError>;
}

impl<K: Pod, V: Pod> Listed<K, V> for HashMap<MapData, K, V> {
    fn all_keys(&self) -> Result<Vec<K>, MapError> {
        self.keys().collect()
    }
}

impl<K: Pod, V: Pod> Listed<Key<K>, V> for LpmTrie<MapData, K, V> {
    fn all_keys(&self) -> Result<Vec<Key<K>>, MapError> {
        self.keys().collect()
    }
}

impl<V: Pod> Listed<u32, V> for Array<MapData, V> {
    fn all_keys(&self) -> Result<Vec<u32>, MapError> {
        Ok((0..self.len()).collect())
    }
}

/// A walk over the entries of a map, some at a time; between two steps other work may be done.
///
/// An entry of a hash that is there all the time is met once, whatever others add and remove meanwhile: the kernel walks over the
/// buckets, whose number never changes. (One by one, all keys are listed at the first step.)
#[derive(Debug)]
pub(crate) struct Walk<K, V> {
    keys: Vec<K>,
    values: Vec<V>,
    /// How many are read at once.
    entries: usize,
    position: Position<K>,
}

#[derive(Debug)]
enum Position<K> {
    Start,
    Behind(Token),
    /// Keys whose entries are not read yet.
    Listed(std::vec::IntoIter<K>),
    End,
}

impl<K: Pod, V: Pod> Walk<K, V> {
    /// At the first entry.
    pub(crate) fn new() -> Self {
        Self::of(ENTRIES)
    }

    fn of(entries: usize) -> Self {
        Self { keys: Vec::new(), values: Vec::new(), entries, position: Position::Start }
    }

    /// Reads the next entries; `false`: there are no more.
    pub(crate) fn step(&mut self, map: &impl Listed<K, V>) -> Result<bool, MapError> {
        self.keys.clear();
        self.values.clear();
        while self.keys.is_empty() {
            match &mut self.position {
                Position::End => return Ok(false),
                Position::Listed(keys) => {
                    for key in keys.by_ref().take(self.entries) {
                        match map.get(&key) {
                            Ok(value) => {
                                self.keys.push(key);
                                self.values.push(value);
                            }
                            Err(error) => ignore_missing(Err(error))?,
                        }
                    }
                    if keys.len() == 0 {
                        self.position = Position::End;
                    }
                }
                Position::Start | Position::Behind(_) => self.read(map)?,
            }
        }
        Ok(true)
    }

    /// What the last step has read.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&K, &V)> {
        self.keys.iter().zip(&self.values)
    }

    fn read(&mut self, map: &impl Listed<K, V>) -> Result<(), MapError> {
        let fd = map.map().fd().as_fd();
        let from = if let Position::Behind(token) = &self.position { Some(token) } else { None };
        let read = |tokens: Tokens<'_>, count| {
            let result = sys::lookup_batch(fd, tokens, (&mut self.keys, &mut self.values), count);
            (self.keys.len(), result)
        };
        self.position = match read_batch(from, size_of::<K>(), &mut self.entries, read) {
            Ok(Batch::Read(next)) => Position::Behind(next),
            Ok(Batch::Last) => Position::End,
            Ok(Batch::Unsupported) => Position::Listed(map.all_keys()?.into_iter()),
            Err(error) => return Err(MapError::IoError(error)),
        };
        Ok(())
    }
}

/// What a batch was.
pub(crate) enum Batch {
    /// There are more behind this.
    Read(Token),
    Last,
    /// There are none of this kernel and kind of map.
    Unsupported,
}

/// Reads a batch of up to `entries`, behind `from` or the first one. `read` makes the call, and says how many entries it has read.
pub(crate) fn read_batch(
    from: Option<&Token>,
    key_size: usize,
    entries: &mut usize,
    mut read: impl FnMut(Tokens<'_>, usize) -> (usize, io::Result<()>),
) -> io::Result<Batch> {
    for _ in 0..ATTEMPTS {
        let mut next = Token::of(key_size);
        let (count, result) = read((from, &mut next), *entries);
        let Err(error) = result else { return Ok(Batch::Read(next)) };
        match error.raw_os_error() {
            Some(libc::ENOENT) => return Ok(Batch::Last),
            Some(libc::ENOSPC) if count == 0 && *entries < LARGEST_BUCKET => *entries *= 2,
            _ if sys::is_interrupted(&error) => {
                if count > 0 {
                    return Ok(Batch::Read(next));
                }
            }
            _ if sys::is_unsupported(&error) && from.is_none() => return Ok(Batch::Unsupported),
            _ => return Err(error),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// The elements of an array.
pub(crate) fn elements<V: Pod + Default>(array: &Array<MapData, V>) -> Result<Vec<V>, MapError> {
    let mut elements = vec![V::default(); array.len() as usize];
    let mut walk = Walk::<u32, V>::new();
    while walk.step(array)? {
        for (index, value) in walk.entries() {
            if let Some(element) = elements.get_mut(*index as usize) {
                *element = *value;
            }
        }
    }
    Ok(elements)
}

/// Removes the entries with these keys, whatever they are by now; how many there were.
pub(crate) fn remove_all<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    keys: &[K],
) -> Result<usize, MapError> {
    let (mut left, mut removed, mut attempts) = (keys, 0, 0);
    while !left.is_empty() {
        let now = &left[..left.len().min(ENTRIES)];
        let (deleted, result) = sys::delete_batch(map.map().fd().as_fd(), now);
        removed += deleted;
        left = &left[deleted..];
        let Err(error) = result else { continue };
        match error.raw_os_error() {
            // Somebody else was first: not the next key.
            Some(libc::ENOENT) => left = left.get(1..).unwrap_or_default(),
            _ if sys::is_unsupported(&error) => return Ok(removed + remove_each(map, left)?),
            _ if sys::is_interrupted(&error) && attempts < ATTEMPTS => {
                attempts = if deleted > 0 { 0 } else { attempts + 1 };
            }
            _ => return Err(MapError::IoError(error)),
        }
    }
    Ok(removed)
}

fn remove_each<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, keys: &[K]) -> Result<usize, MapError> {
    let mut removed = 0;
    for key in keys {
        removed += usize::from(remove(map, key)?);
    }
    Ok(removed)
}

/// Whether there was such an entry.
fn remove<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K) -> Result<bool, MapError> {
    match map.remove(key) {
        Ok(()) => Ok(true),
        Err(error) => ignore_missing(Err(error)).map(|()| false),
    }
}

/// Removes an entry if that is still right when it is read again, because a packet may have come since it was listed. Answers whether
/// it was removed.
///
/// If it changes even between that and its removal, it is put back; not before Linux 5.14, where the two are not one operation.
pub(crate) fn remove_if<K: Pod, V: Pod>(
    map: &mut HashMap<MapData, K, V>,
    key: &K,
    is_right: impl Fn(&V) -> bool,
) -> Result<bool, MapError> {
    match map.get(key, 0) {
        Ok(value) if is_right(&value) => {}
        Ok(_) => return Ok(false),
        Err(error) => return ignore_missing(Err(error)).map(|()| false),
    }
    match sys::take::<K, V>(map.map().fd().as_fd(), key) {
        Ok(None) => Ok(false),
        Ok(Some(value)) if is_right(&value) => Ok(true),
        Ok(Some(value)) => put_back(map, key, &value),
        Err(error) if sys::is_unsupported(&error) => remove(map, key),
        Err(error) => Err(MapError::IoError(error)),
    }
}

/// Whether the entry is gone nevertheless: somebody has made another one, or taken its room.
fn put_back<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>, key: &K, value: &V) -> Result<bool, MapError> {
    match map.insert(key, value, NO_EXIST) {
        Ok(()) => Ok(false),
        Err(MapError::SyscallError(error))
            if matches!(error.io_error.raw_os_error(), Some(libc::EEXIST | libc::E2BIG)) =>
        {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
