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
