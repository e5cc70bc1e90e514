//! The map `addresses`: which NIC of a pod has an address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::{HashMap, IterableMap as _, MapData};
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::maps::{AddressEntry, AddressKey, names};

use crate::error::{MapError, ignore_missing};

/// The map, and what it has by NIC: to set one NIC's addresses those of all others are not read.
pub(crate) struct Addresses {
    map: HashMap<MapData, AddressKey, AddressEntry>,
    by_nic: BTreeMap<u16, Vec<AddressKey>>,
}

impl Addresses {
    /// With what the map has already.
    pub(crate) fn of(map: HashMap<MapData, AddressKey, AddressEntry>) -> Self {
        let mut by_nic: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (key, entry) in map.iter().filter_map(Result::ok) {
            by_nic.entry(entry.nic).or_default().push(key);
        }
        Self { map, by_nic }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.by_nic.values().map(Vec::len).sum()
    }

    pub(crate) fn map(&self) -> &MapData {
        self.map.map()
    }

    /// Makes the addresses of a NIC of a pod exactly these.
    pub(crate) fn set(&mut self, id: u16, pod: u16, addresses: &[IpAddr]) -> Result<(), MapError> {
        let want: BTreeSet<[u8; 16]> = addresses.iter().map(|ip| addr(*ip).bytes).collect();
        let want: Vec<_> = want.into_iter().map(|bytes| AddressKey::new(pod, Addr::v6(bytes))).collect();
        let mut have = self.by_nic.remove(&id).unwrap_or_default();
        for key in &want {
            if !have.contains(key) {
                have.push(*key);
            }
        }
        // All that the map may have from here on, whatever fails below.
        self.by_nic.insert(id, have.clone());
        for key in &want {
            self.map
                .insert(key, AddressEntry { nic: id, _pad: 0 }, 0)
                .map_err(MapError::of(names::ADDRESSES))?;
        }
        for key in have.iter().filter(|key| !want.contains(key)) {
            // Another NIC may have got the address since.
            if self.map.get(key, 0).is_ok_and(|entry| entry.nic == id) {
                ignore_missing(self.map.remove(key)).map_err(MapError::of(names::ADDRESSES))?;
            }
        }
        if want.is_empty() {
            self.by_nic.remove(&id)
        } else {
            self.by_nic.insert(id, want)
        };
        Ok(())
    }
}

fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}
