//! How full the maps are that the agent alone writes. (`fragments` and `link_fragments` are LRU hashes: full, the kernel makes room.)

use aya::maps::IterableMap as _;
use spiderpool_ebpf_common::maps::names;

use crate::error::MapError;
use crate::load::Dataplane;

/// Entries of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableUsage {
    /// The map's name.
    pub map: &'static str,
    /// Entries that it has.
    pub entries: usize,
    /// Entries that it has room for.
    pub capacity: u32,
}

impl Dataplane {
    /// Of `cluster_cidrs`, `addresses` and `node_devices`.
    pub fn tables(&mut self) -> Result<[TableUsage; 3], MapError> {
        let cidrs = self.count_cidrs()?;
        let maps = &self.maps;
        let usage = |name: &'static str, map: &aya::maps::MapData, entries: usize| {
            let info = map.info().map_err(MapError::of(name))?;
            Ok(TableUsage { map: name, entries, capacity: info.max_entries() })
        };
        Ok([
            usage(names::CLUSTER_CIDRS, maps.cidrs.map(), cidrs)?,
            usage(names::ADDRESSES, maps.addresses.map(), maps.addresses.len())?,
            usage(names::NODE_DEVICES, maps.devices.map(), maps.devices.keys().flatten().count())?,
        ])
    }
}
