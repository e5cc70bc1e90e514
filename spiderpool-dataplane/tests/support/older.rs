//! Maps as other versions of the programs would have pinned them.

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use aya_obj::generated::bpf_map_type::{self, BPF_MAP_TYPE_LPM_TRIE};
use aya_obj::generated::{bpf_attr, bpf_cmd};
use nix::libc;

use super::btf::Btf;

/// `BPF_F_NO_PREALLOC` of linux/bpf.h.
const NO_PREALLOC: u32 = 1;

/// A member of a key or a value.
#[derive(Clone, Copy)]
pub(crate) enum Member {
    /// Of so many bytes.
    Int(u32),
    /// So many of them.
    Bytes(u32),
    /// A struct of 16.
    Addr,
    /// A struct of an id, two bytes and an [`Member::Addr`].
    Cidr,
}

/// Members one behind the other, which must not leave gaps.
pub(crate) type Members<'a> = &'a [(&'a str, Member)];

fn add(btf: &mut Btf, member: Member) -> (u32, u32) {
    match member {
        Member::Int(size) => (btf.int(size, false), size),
        Member::Bytes(len) => {
            let byte = btf.int(1, false);
            (btf.array(byte, len), len)
        }
        Member::Addr => add_struct(btf, &[("bytes", Member::Bytes(16))]),
        Member::Cidr => {
            add_struct(btf, &[("profile", Member::Int(2)), ("_pad", Member::Int(2)), ("addr", Member::Addr)])
        }
    }
}

fn add_struct(btf: &mut Btf, members: Members<'_>) -> (u32, u32) {
    let mut size = 0;
    let mut laid_out = Vec::new();
    for (name, member) in members {
        let (ty, len) = add(btf, *member);
        laid_out.push((*name, ty, size));
        size += len;
    }
    (btf.structure(size, &laid_out), size)
}

fn bpf(cmd: bpf_cmd, fill: impl FnOnce(&mut bpf_attr)) -> io::Result<OwnedFd> {
    // SAFETY: a union of integers; all zero is valid.
    let mut attr: bpf_attr = unsafe { std::mem::zeroed() };
    fill(&mut attr);
    // SAFETY: attr is a whole bpf_attr, and what it points to outlives the call.
    let fd = unsafe {
        libc::syscall(libc::SYS_bpf, cmd as u32, std::ptr::from_mut(&mut attr), size_of::<bpf_attr>())
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just returned this descriptor to us; nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(RawFd::try_from(fd).unwrap()) })
}

/// Pins a map with this layout, for 1024 entries, in place of what is there.
pub(crate) fn pin(path: &Path, kind: bpf_map_type, key: Members<'_>, value: Members<'_>) -> MapData {
    let mut btf = Btf::new();
    let ((key, key_size), (value, value_size)) = (add_struct(&mut btf, key), add_struct(&mut btf, value));
    let blob = btf.bytes();
    let btf = bpf(bpf_cmd::BPF_BTF_LOAD, |attr| {
        attr.__bindgen_anon_7.btf = blob.as_ptr() as u64;
        attr.__bindgen_anon_7.btf_size = u32::try_from(blob.len()).unwrap();
    });
    let btf = btf.unwrap();
    let map = bpf(bpf_cmd::BPF_MAP_CREATE, |attr| {
        // SAFETY: a struct of integers.
        let map = unsafe { &mut attr.__bindgen_anon_1 };
        map.map_type = kind as u32;
        (map.key_size, map.value_size, map.max_entries) = (key_size, value_size, 1024);
        map.map_flags = NO_PREALLOC;
        map.btf_fd = btf.as_raw_fd().cast_unsigned();
        (map.btf_key_type_id, map.btf_value_type_id) = (key, value);
    });
    let map = MapData::from_fd(map.unwrap()).unwrap();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let _ = std::fs::remove_file(path);
    map.pin(path).unwrap();
    map
}

/// The map as bytes.
pub(crate) fn bytes<const K: usize, const V: usize>(map: MapData) -> HashMap<MapData, [u8; K], [u8; V]>
where
    [u8; K]: Pod,
    [u8; V]: Pod,
{
    assert_ne!(map.info().unwrap().map_type().unwrap() as u32, BPF_MAP_TYPE_LPM_TRIE as u32);
    HashMap::try_from(Map::HashMap(map)).unwrap()
}

/// One behind the other.
pub(crate) fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    parts.concat().try_into().unwrap()
}
