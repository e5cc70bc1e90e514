//! Flows in the maps of an earlier version. A map of another size is replaced; what its entries mean has not changed, so
//! established flows go on.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, LinkFlow, NatEntry, names};

use crate::batch::{NO_EXIST, Walk};
use crate::error::MapError;
use crate::maps::Maps;
use crate::pins::Pinned;

/// Maps that attached programs of an earlier version go on to write until their filters are replaced.
#[derive(Debug, Default)]
pub(crate) struct EarlierFlows {
    arrivals: Option<OwnedFd>,
    nat: Option<OwnedFd>,
    link_flows: Option<OwnedFd>,
}

impl EarlierFlows {
    /// Of what was pinned, by the pins' names.
    pub(crate) fn of(maps: impl IntoIterator<Item = (&'static str, Pinned)>) -> Self {
        let mut earlier = Self::default();
        for (pin, pinned) in maps {
            let Pinned::Differs { fd, has_same_entries: true } = pinned else { continue };
            match pin {
                names::ARRIVALS => earlier.arrivals = Some(fd),
                names::NAT => earlier.nat = Some(fd),
                names::LINK_FLOWS => earlier.link_flows = Some(fd),
                _ => {}
            }
        }
        earlier
    }

    /// Copies what these maps have and the new ones lack; how many entries, by the pods' ids.
    pub(crate) fn copy_to(&self, maps: &mut Maps) -> Result<BTreeMap<u16, usize>, MapError> {
        let mut pods = BTreeMap::new();
        if let Some(fd) = &self.arrivals {
            copy::<ArrivalEntry>(fd, &mut maps.arrivals, names::ARRIVALS, &mut pods)?;
        }
        if let Some(fd) = &self.nat {
            copy::<NatEntry>(fd, &mut maps.nat, names::NAT, &mut pods)?;
        }
        if let Some(fd) = &self.link_flows {
            copy::<LinkFlow>(fd, &mut maps.link_flows, names::LINK_FLOWS, &mut pods)?;
        }
        Ok(pods)
    }
}

fn copy<V: Pod>(
    from: &OwnedFd,
    to: &mut HashMap<MapData, FlowKey, V>,
    name: &'static str,
    pods: &mut BTreeMap<u16, usize>,
) -> Result<(), MapError> {
    let fd = from.try_clone().map_err(|error| MapError::of(name)(aya::maps::MapError::IoError(error)))?;
    let from = MapData::from_fd(fd).map_err(MapError::of(name))?;
    let from = HashMap::<_, FlowKey, V>::try_from(Map::HashMap(from)).map_err(MapError::of(name))?;
    let mut walk = Walk::new();
    while walk.step(&from).map_err(MapError::of(name))? {
        for (key, value) in walk.entries() {
            if insert(to, key, value, name)? {
                *pods.entry(key.pod).or_default() += 1;
            }
        }
    }
    Ok(())
}

/// Whether there was no such entry.
fn insert<V: Pod>(
    to: &mut HashMap<MapData, FlowKey, V>,
    key: &FlowKey,
    value: &V,
    name: &'static str,
) -> Result<bool, MapError> {
    // What the new programs have recorded is newer.
    match to.insert(key, value, NO_EXIST) {
        Ok(()) => Ok(true),
        Err(aya::maps::MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::AlreadyExists =>
        {
            Ok(false)
        }
        Err(error) => Err(MapError::of(name)(error)),
    }
}
