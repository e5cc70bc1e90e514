//! The maps with their types, as the loader hands them over.

use std::os::fd::{AsFd as _, BorrowedFd};

use aya::maps::{Array, HashMap, IterableMap as _, LpmTrie, MapData, PerCpuArray};
use spiderpool_ebpf_common::maps::{
    ArrivalEntry, CidrEntry, CidrKey, FlowKey, LinkFlow, NatEntry, NicEntry, NodeDevice, PodFlags, PodUsage,
    names,
};
use spiderpool_ebpf_common::reason::Counters;

use crate::addresses::Addresses;
use crate::error::MapError;

/// Every map of the dataplane but the log's ring buffer.
pub(crate) struct Maps {
    pub(crate) nics: Array<MapData, NicEntry>,
    pub(crate) addresses: Addresses,
    pub(crate) cidrs: LpmTrie<MapData, CidrKey, CidrEntry>,
    pub(crate) arrivals: HashMap<MapData, FlowKey, ArrivalEntry>,
    pub(crate) nat: HashMap<MapData, FlowKey, NatEntry>,
    pub(crate) link_flows: HashMap<MapData, FlowKey, LinkFlow>,
    pub(crate) added: Array<MapData, PodUsage>,
    pub(crate) removed: Array<MapData, PodUsage>,
    pub(crate) pod_flags: Array<MapData, PodFlags>,
    pub(crate) devices: HashMap<MapData, u32, NodeDevice>,
    pub(crate) stats: PerCpuArray<MapData, Counters>,
}

impl std::fmt::Debug for Maps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Maps").field("nics", &self.nics.len()).finish_non_exhaustive()
    }
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(crate) fn take(ebpf: &mut aya::Ebpf) -> Result<Self, MapError> {
        let mut map = |name| ebpf.take_map(name).ok_or(MapError::Missing { map: name });
        Ok(Self {
            nics: Array::try_from(map(names::NICS)?).map_err(MapError::of(names::NICS))?,
            addresses: HashMap::try_from(map(names::ADDRESSES)?)
                .map(Addresses::of)
                .map_err(MapError::of(names::ADDRESSES))?,
            cidrs: LpmTrie::try_from(map(names::CLUSTER_CIDRS)?)
                .map_err(MapError::of(names::CLUSTER_CIDRS))?,
            arrivals: HashMap::try_from(map(names::ARRIVALS)?).map_err(MapError::of(names::ARRIVALS))?,
            nat: HashMap::try_from(map(names::NAT)?).map_err(MapError::of(names::NAT))?,
            link_flows: HashMap::try_from(map(names::LINK_FLOWS)?)
                .map_err(MapError::of(names::LINK_FLOWS))?,
            added: Array::try_from(map(names::ADDED)?).map_err(MapError::of(names::ADDED))?,
            removed: Array::try_from(map(names::REMOVED)?).map_err(MapError::of(names::REMOVED))?,
            pod_flags: Array::try_from(map(names::POD_FLAGS)?).map_err(MapError::of(names::POD_FLAGS))?,
            devices: HashMap::try_from(map(names::NODE_DEVICES)?)
                .map_err(MapError::of(names::NODE_DEVICES))?,
            stats: PerCpuArray::try_from(map(names::STATS)?).map_err(MapError::of(names::STATS))?,
        })
    }

    /// The descriptor of a map whose entries can be carried over.
    pub(crate) fn fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        let map = match name {
            names::CLUSTER_CIDRS => self.cidrs.map(),
            names::ARRIVALS => self.arrivals.map(),
            names::NAT => self.nat.map(),
            names::LINK_FLOWS => self.link_flows.map(),
            names::NODE_DEVICES => self.devices.map(),
            _ => return None,
        };
        Some(map.fd().as_fd())
    }
}
