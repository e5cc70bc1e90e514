//! The map `addresses`: the addresses of a NIC beyond the first of each family.

use std::collections::BTreeSet;
use std::net::IpAddr;

use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::maps::{AddressEntry, AddressKey, names};

use crate::batch::{Walk, remove_all};
use crate::error::MapError;
use crate::load::Dataplane;

impl Dataplane {
    /// Makes the further addresses of a NIC of a pod exactly these.
    pub fn addresses_set(&mut self, id: u16, pod: u16, addresses: &[IpAddr]) -> Result<(), MapError> {
        let want: BTreeSet<[u8; 16]> = addresses.iter().map(|ip| addr(*ip).bytes).collect();
        for bytes in &want {
            let key = AddressKey::new(pod, Addr::v6(*bytes));
            let entry = AddressEntry { nic: id, _pad: 0 };
            self.maps.addresses.insert(key, entry, 0).map_err(MapError::of(names::ADDRESSES))?;
        }
        let is_of_others = |key: &AddressKey| !(key.pod == pod && want.contains(&key.addr.bytes));
        let (mut gone, mut walk) = (Vec::new(), Walk::<AddressKey, AddressEntry>::new());
        while walk.step(&self.maps.addresses).map_err(MapError::of(names::ADDRESSES))? {
            let have = walk.entries().filter(|(_, entry)| entry.nic == id);
            gone.extend(have.map(|(key, _)| *key).filter(is_of_others));
        }
        remove_all(&mut self.maps.addresses, &gone).map_err(MapError::of(names::ADDRESSES))?;
        Ok(())
    }
}

fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}
