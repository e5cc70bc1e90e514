//! Flows in the maps of an earlier version. A map of another size is replaced; what its entries mean has not changed, so
//! established flows go on.

use std::os::fd::OwnedFd;

use aya::Pod;
use aya::maps::{HashMap, Map, MapData};
use spiderpool_ebpf_common::flow_state::{self, SECOND};
use spiderpool_ebpf_common::maps::{ArrivalEntry, FlowKey, LinkFlow, NatEntry, ROLE_NODE_LINK, Tuple, names};

use crate::error::MapError;
use crate::maps::Maps;
use crate::pins::Pinned;

/// `BPF_NOEXIST` of linux/bpf.h: what the new programs have recorded is newer.
const NO_EXIST: u64 = 1;

/// Maps that attached programs of an earlier version go on to write until their filters are replaced.
#[derive(Debug, Default)]
pub(crate) struct EarlierFlows {
    arrivals: Option<OwnedFd>,
    nat: Option<OwnedFd>,
    link_flows: Option<OwnedFd>,
    /// The earlier version had no `link_flows`: what came by node links is among the arrivals.
    without_link_flows: bool,
}

impl EarlierFlows {
    /// Of what was pinned, by the pins' names.
    pub(crate) fn of(maps: impl IntoIterator<Item = (&'static str, Pinned)>) -> Self {
        let mut earlier = Self::default();
        for (pin, pinned) in maps {
            if pin == names::LINK_FLOWS && matches!(pinned, Pinned::Nothing) {
                earlier.without_link_flows = true;
            }
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

    /// Copies what these maps have and the new ones lack; how many entries.
    pub(crate) fn copy_to(&self, maps: &mut Maps) -> Result<usize, MapError> {
        let arrivals = self.arrivals.as_ref();
        let arrivals = arrivals.map(|fd| copy::<ArrivalEntry>(fd, &mut maps.arrivals, names::ARRIVALS));
        let nat = self.nat.as_ref().map(|fd| copy::<NatEntry>(fd, &mut maps.nat, names::NAT));
        let link_flows = self.link_flows.as_ref();
        let link_flows = link_flows.map(|fd| copy::<LinkFlow>(fd, &mut maps.link_flows, names::LINK_FLOWS));
        let copied = [arrivals.transpose()?, nat.transpose()?, link_flows.transpose()?];
        let made = if self.without_link_flows { from_arrivals(maps)? } else { 0 };
        Ok(copied.into_iter().flatten().sum::<usize>() + made)
    }
}

/// Records at the host ends the flows that have come by node links; how many.
fn from_arrivals(maps: &mut Maps) -> Result<usize, MapError> {
    let arrivals: Vec<_> = maps.arrivals.iter().filter_map(Result::ok).collect();
    let mut made = 0;
    for (key, arrival) in arrivals.iter().filter(|(key, _)| key.is(Tuple::Original)) {
        let Ok(nic) = maps.nics.get(&u32::from(arrival.nic), 0) else { continue };
        if nic.role == ROLE_NODE_LINK && nic.pod == key.pod {
            let opened = u32::try_from(arrival.last_seen / SECOND).unwrap_or(u32::MAX);
            // An earlier version recorded nothing else of connections.
            let state = arrival.state | flow_state::ANSWERED;
            let flow = LinkFlow { last_seen: arrival.last_seen, opened, state, _pad: [0; 3] };
            made += usize::from(insert(&mut maps.link_flows, key, flow, names::LINK_FLOWS)?);
        }
    }
    Ok(made)
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
        copied += usize::from(insert(to, &key, value, name)?);
    }
    Ok(copied)
}

/// Whether there was no such entry.
fn insert<V: Pod>(
    to: &mut HashMap<MapData, FlowKey, V>,
    key: &FlowKey,
    value: V,
    name: &'static str,
) -> Result<bool, MapError> {
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
