//! Flows in the maps of an earlier version. A map of another size is replaced; what its entries mean has not changed, so
//! established flows go on.

use std::os::fd::OwnedFd;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, NatEntry, names};

use crate::error::MapError;
use crate::load::{Dataplane, PinnedMap};
use crate::pins::Pinned;

/// `BPF_NOEXIST` of linux/bpf.h: what the new programs have recorded is newer.
const NO_EXIST: u64 = 1;

/// Maps that attached programs of an earlier version go on to write until their filters are replaced.
#[derive(Debug, Default)]
pub(crate) struct EarlierFlows {
    arrivals: Option<OwnedFd>,
    nat: Option<OwnedFd>,
}

impl EarlierFlows {
    pub(crate) fn of(maps: Vec<PinnedMap>) -> Self {
        let mut earlier = Self::default();
        for map in maps {
            let Pinned::Differs { fd, has_same_entries: true } = map.pinned else { continue };
            match map.pin {
                names::ARRIVALS => earlier.arrivals = Some(fd),
                names::NAT => earlier.nat = Some(fd),
                _ => {}
            }
        }
        earlier
    }
}

impl Dataplane {
    /// Takes over the flows of replaced maps that are not here yet; how many entries. To be called once the maps are
    /// loaded and again when all filters are this version's: until then earlier programs record in their own maps.
    pub fn carry_flows(&mut self) -> Result<usize, MapError> {
        let arrivals = self.earlier.arrivals.as_ref();
        let arrivals = arrivals.map(|fd| copy::<ArrivalEntry>(fd, &mut self.maps.arrivals, names::ARRIVALS));
        let nat = self.earlier.nat.as_ref();
        let nat = nat.map(|fd| copy::<NatEntry>(fd, &mut self.maps.nat, names::NAT));
        Ok(arrivals.transpose()?.unwrap_or_default() + nat.transpose()?.unwrap_or_default())
    }

    /// No program of an earlier version is attached any more.
    pub fn forget_earlier_flows(&mut self) {
        self.earlier = EarlierFlows::default();
    }
}

fn copy<V: Pod>(
    from: &OwnedFd,
    to: &mut HashMap<MapData, FlowKey, V>,
    name: &'static str,
) -> Result<usize, MapError> {
    let fd = from.try_clone().map_err(|error| MapError::of(name)(aya::maps::MapError::IoError(error)))?;
    let from = MapData::from_fd(fd).map_err(MapError::of(name))?;
    let from = HashMap::<_, FlowKey, V>::try_from(Map::HashMap(from)).map_err(MapError::of(name))?;
    // All at once: an iteration over a hash that changes meanwhile begins anew.
    let entries: Vec<_> = from.iter().filter_map(Result::ok).collect();
    let mut copied = 0;
    for (key, value) in entries {
        match to.insert(key, value, NO_EXIST) {
            Ok(()) => copied += 1,
            Err(aya::maps::MapError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(MapError::of(name)(error)),
        }
    }
    Ok(copied)
}
