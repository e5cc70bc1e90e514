//! The few bpf(2) calls that aya does not offer: opening pins without a loader, and a map's BTF; and the way back to
//! the kernel for the memory that loading takes.
//!
//! What is opened here is closed on drop, with `O_CLOEXEC`, as everywhere.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aya_obj::generated::{bpf_attr, bpf_btf_info, bpf_cmd, bpf_map_info, bpf_prog_info};
use nix::libc;

fn bpf(cmd: bpf_cmd, attr: &mut bpf_attr) -> io::Result<libc::c_long> {
    // SAFETY: attr is a whole bpf_attr, zeroed where it was not set, and outlives the call.
    let ret =
        unsafe { libc::syscall(libc::SYS_bpf, cmd as u32, std::ptr::from_mut(attr), size_of::<bpf_attr>()) };
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

fn zeroed() -> bpf_attr {
    // SAFETY: a union of integers; all zero is valid.
    unsafe { std::mem::zeroed() }
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel just returned this descriptor to us; nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

/// `BPF_OBJ_GET`: opens a pinned map or program.
pub(crate) fn obj_get(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    bpf(bpf_cmd::BPF_OBJ_GET, &mut attr).map(owned)
}

/// `BPF_OBJ_PIN`: pins a map or program; the path must not exist.
pub(crate) fn obj_pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = zeroed();
    attr.__bindgen_anon_4.pathname = path.as_ptr() as u64;
    attr.__bindgen_anon_4.bpf_fd = fd.as_raw_fd() as u32;
    bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr).map(drop)
}

fn info<T>(fd: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let mut attr = zeroed();
    attr.info.bpf_fd = fd.as_raw_fd() as u32;
    attr.info.info_len = size_of::<T>() as u32;
    attr.info.info = std::ptr::from_mut(info) as u64;
    bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// What the kernel says about a map.
pub(crate) fn map_info(fd: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: a struct of integers; all zero is valid.
    let mut out: bpf_map_info = unsafe { std::mem::zeroed() };
    info(fd, &mut out)?;
    Ok(out)
}

/// The kernel's id of a program.
pub(crate) fn prog_id(fd: BorrowedFd<'_>) -> io::Result<u32> {
    // SAFETY: a struct of integers; all zero is valid, and asks for none of the arrays.
    let mut out: bpf_prog_info = unsafe { std::mem::zeroed() };
    info(fd, &mut out)?;
    Ok(out.id)
}

/// The BTF with this id, as the kernel keeps it.
pub(crate) fn btf_blob(id: u32) -> io::Result<Vec<u8>> {
    let mut attr = zeroed();
    attr.__bindgen_anon_6.__bindgen_anon_1.btf_id = id;
    let fd = bpf(bpf_cmd::BPF_BTF_GET_FD_BY_ID, &mut attr).map(owned)?;
    let fd = std::os::fd::AsFd::as_fd(&fd);
    // SAFETY: a struct of integers; all zero is valid.
    let mut size: bpf_btf_info = unsafe { std::mem::zeroed() };
    info(fd, &mut size)?;
    let mut blob = vec![0u8; size.btf_size as usize];
    // SAFETY: as above.
    let mut with: bpf_btf_info = unsafe { std::mem::zeroed() };
    with.btf = blob.as_mut_ptr() as u64;
    with.btf_size = blob.len() as u32;
    info(fd, &mut with)?;
    Ok(blob)
}

/// Hands unused memory of the heap back to the kernel, which glibc does by itself only at the heap's end.
pub fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes the allocator's own locks; may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the kernel answers where a kind of map lacks an operation; only the kernel knows the number.
const ENOTSUPP: i32 = 524;

/// Whether an operation is missing: in this kernel (EINVAL), or for this kind of map.
pub(crate) fn is_unsupported(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP | ENOTSUPP))
}

/// Whether the kernel has stopped before the end and is to be asked again.
pub(crate) fn is_interrupted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::EBUSY))
}

/// Where the next `BPF_MAP_LOOKUP_BATCH` begins: a bucket of a hash, a key of other maps.
#[derive(Debug, Clone)]
pub(crate) struct Token(Vec<u8>);

impl Token {
    /// Empty, for a map with keys of this size.
    pub(crate) fn of(key_size: usize) -> Self {
        Self(vec![0; key_size.max(size_of::<u32>())])
    }
}

/// Where a `BPF_MAP_LOOKUP_BATCH` begins, the first entries or those behind a token, and the token that it sets.
pub(crate) type Tokens<'a> = (Option<&'a Token>, &'a mut Token);

/// `BPF_MAP_LOOKUP_BATCH`: reads up to `count` entries into the two vectors. With the errors that are no failures (ENOENT: these are
/// the last ones; ENOSPC: a bucket has more; interrupted) the vectors have what was read before.
pub(crate) fn lookup_batch<K: aya::Pod, V: aya::Pod>(
    fd: BorrowedFd<'_>,
    tokens: Tokens<'_>,
    (keys, values): (&mut Vec<K>, &mut Vec<V>),
    count: usize,
) -> io::Result<()> {
    keys.clear();
    values.clear();
    keys.reserve(count);
    values.reserve(count);
    let (read, result) =
        lookup_batch_at(fd, tokens, keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, count);
    // SAFETY: the kernel has written so many, at most `count`, for which there is room; any bytes are a valid value of both.
    unsafe {
        keys.set_len(read);
        values.set_len(read);
    }
    result
}

/// The same of a map whose keys and values have these sizes in bytes.
pub(crate) fn lookup_batch_bytes(
    fd: BorrowedFd<'_>,
    tokens: Tokens<'_>,
    (keys, key_size): (&mut Vec<u8>, usize),
    (values, value_size): (&mut Vec<u8>, usize),
    count: usize,
) -> io::Result<()> {
    keys.clear();
    values.clear();
    keys.resize(count * key_size, 0);
    values.resize(count * value_size, 0);
    let (read, result) =
        lookup_batch_at(fd, tokens, keys.as_mut_ptr() as u64, values.as_mut_ptr() as u64, count);
    keys.truncate(read * key_size);
    values.truncate(read * value_size);
    result
}

/// The call, with room for `count` keys and values at these addresses; how many were written.
fn lookup_batch_at(
    fd: BorrowedFd<'_>,
    (from, next): Tokens<'_>,
    keys: u64,
    values: u64,
    count: usize,
) -> (usize, io::Result<()>) {
    let mut attr = zeroed();
    attr.batch.in_batch = from.map_or(0, |token| token.0.as_ptr() as u64);
    attr.batch.out_batch = next.0.as_mut_ptr() as u64;
    attr.batch.keys = keys;
    attr.batch.values = values;
    attr.batch.count = count as u32;
    attr.batch.map_fd = fd.as_raw_fd() as u32;
    let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr).map(drop);
    let is_counted = result.as_ref().err().is_none_or(|error| {
        is_interrupted(error) || matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOSPC))
    });
    // SAFETY: a field of integers.
    let read = unsafe { attr.batch.count } as usize;
    (if is_counted { read.min(count) } else { 0 }, result)
}

/// `BPF_MAP_DELETE_BATCH`: deletes the entries with these keys, up to the first one that fails; how many were deleted, and why no
/// more.
pub(crate) fn delete_batch<K: aya::Pod>(fd: BorrowedFd<'_>, keys: &[K]) -> (usize, io::Result<()>) {
    let mut attr = zeroed();
    attr.batch.keys = keys.as_ptr() as u64;
    attr.batch.count = keys.len() as u32;
    attr.batch.map_fd = fd.as_raw_fd() as u32;
    match bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut attr) {
        Ok(_) => (keys.len(), Ok(())),
        Err(error) if is_unsupported(&error) => (0, Err(error)),
        Err(error) => {
            // SAFETY: a field of integers.
            let deleted = unsafe { attr.batch.count } as usize;
            // Where the kernel has not begun it has not counted.
            (if deleted < keys.len() { deleted } else { 0 }, Err(error))
        }
    }
}

/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, of hash maps since Linux 5.14: takes an entry out, and answers what it was then.
pub(crate) fn take<K: aya::Pod, V: aya::Pod>(fd: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = std::mem::MaybeUninit::<V>::zeroed();
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = std::ptr::from_ref(key) as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    match bpf(bpf_cmd::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) {
        // SAFETY: zeroed, then written by the kernel; any bytes are a valid value.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `BPF_MAP_GET_NEXT_KEY`: the key behind this one, or the first one; `None` at the end.
pub(crate) fn next_key(
    fd: BorrowedFd<'_>,
    key: Option<&[u8]>,
    key_size: usize,
) -> io::Result<Option<Vec<u8>>> {
    let mut next = vec![0; key_size];
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.map_or(0, |key| key.as_ptr() as u64);
    attr.__bindgen_anon_2.__bindgen_anon_1.next_key = next.as_mut_ptr() as u64;
    found(bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut attr), next)
}

/// `BPF_MAP_LOOKUP_ELEM`: the value of a key.
pub(crate) fn lookup(fd: BorrowedFd<'_>, key: &[u8], value_size: usize) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; value_size];
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_mut_ptr() as u64;
    found(bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut attr), value)
}

fn found(result: io::Result<libc::c_long>, bytes: Vec<u8>) -> io::Result<Option<Vec<u8>>> {
    match result {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `BPF_MAP_UPDATE_ELEM`; key and value must have the map's sizes.
pub(crate) fn update(fd: BorrowedFd<'_>, key: &[u8], value: &[u8], flags: u64) -> io::Result<()> {
    let mut attr = zeroed();
    attr.__bindgen_anon_2.map_fd = fd.as_raw_fd() as u32;
    attr.__bindgen_anon_2.key = key.as_ptr() as u64;
    attr.__bindgen_anon_2.__bindgen_anon_1.value = value.as_ptr() as u64;
    attr.__bindgen_anon_2.flags = flags;
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut attr).map(drop)
}
