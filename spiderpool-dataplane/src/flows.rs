//! The maps `arrivals` and `nat`: removes the flows of a pod and what has expired.

use spiderpool_ebpf_common::flow_state;
use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, Tuple, names};

use crate::carry::EarlierFlows;
use crate::error::MapError;
use crate::load::Dataplane;

/// What [`Dataplane::expire`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Translations (pairs of entries) that were removed.
    pub removed: usize,
    /// Entries of half a pair that were removed.
    pub orphans: usize,
    /// Entries that remain in `nat`.
    pub left: usize,
}

/// CLOCK_MONOTONIC in ns, which is what `bpf_ktime_get_ns` counts.
pub(crate) fn now() -> Result<u64, MapError> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_err(|e| MapError::System(e.into()))?;
    Ok(time.tv_sec() as u64 * flow_state::SECOND + time.tv_nsec() as u64)
}

impl Dataplane {
    /// Takes over the flows of replaced maps that are not here yet; how many entries. To be called once the maps are
    /// loaded and again when all filters are this version's: until then earlier programs record in their own maps.
    pub fn carry_flows(&mut self) -> Result<usize, MapError> {
        self.earlier.copy_to(&mut self.maps)
    }

    /// No program of an earlier version is attached any more.
    pub fn forget_earlier_flows(&mut self) {
        self.earlier = EarlierFlows::default();
    }

    /// Removes all flows of a pod (by its id).
    pub fn pod_flush(&mut self, pod: u16) -> Result<(), MapError> {
        let arrivals: Vec<_> = self.maps.arrivals.keys().filter_map(Result::ok).collect();
        for key in arrivals.iter().filter(|key| key.pod == pod) {
            ignore_missing(self.maps.arrivals.remove(key)).map_err(MapError::of(names::ARRIVALS))?;
        }
        let nat: Vec<_> = self.maps.nat.keys().filter_map(Result::ok).collect();
        for key in nat.iter().filter(|key| key.pod == pod) {
            ignore_missing(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
        }
        self.flush_link_flows(pod)
    }

    /// Removes expired translations, and halves whose other half is missing.
    ///
    /// The programs ignore such entries anyway; this makes room. To be called every few seconds.
    pub fn expire(&mut self) -> Result<Expired, MapError> {
        let now = now()?;
        let all: Vec<(FlowKey, NatEntry)> = self.maps.nat.iter().filter_map(Result::ok).collect();
        let mut result = Expired::default();
        let mut entries = 0;
        for (key, _) in &all {
            if key.is(Tuple::Original) {
                let removed = self.expire_pair(key, now)?;
                entries += removed;
                result.removed += usize::from(removed > 0);
            } else if is_orphan(key, now, |key| self.maps.nat.get(key, 0).ok()) {
                ignore_missing(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
                entries += 1;
                result.orphans += 1;
            }
        }
        result.left = all.len().saturating_sub(entries);
        Ok(result)
    }

    /// How many entries of a flow were removed. Reads the entry again, because a packet may have come since the
    /// listing.
    fn expire_pair(&mut self, key: &FlowKey, now: u64) -> Result<usize, MapError> {
        let Ok(entry) = self.maps.nat.get(key, 0) else { return Ok(0) };
        if !flow_state::is_expired(key.protocol, entry.state, entry.last_seen, now) {
            return Ok(0);
        }
        ignore_missing(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
        let translated = key.counterpart(entry.addr, entry.port);
        if self.maps.nat.get(&translated, 0).is_ok_and(|entry| entry.leads_to(key)) {
            ignore_missing(self.maps.nat.remove(&translated)).map_err(MapError::of(names::NAT))?;
            return Ok(2);
        }
        Ok(1)
    }
}

/// Whether the entry of a translated tuple has no other half. It is made first, so a young one may just be waiting for
/// the entry of the original tuple; one that went together with it since the listing is none; and one that a new flow
/// has taken over between the two reads is none either, which is why it is read once more at the end.
fn is_orphan(key: &FlowKey, now: u64, mut read: impl FnMut(&FlowKey) -> Option<NatEntry>) -> bool {
    let Some(entry) = read(key) else { return false };
    let original = key.counterpart(entry.addr, entry.port);
    let named = read(&original).is_some_and(|entry| entry.leads_to(key));
    !named && now.saturating_sub(entry.last_seen) > flow_state::SECOND && read(key) == Some(entry)
}

/// Another CPU, the LRU or the program may have removed the entry first.
pub(crate) fn ignore_missing(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_ebpf_common::addr::Addr;
    use spiderpool_ebpf_common::flow_state::SECOND;
    use spiderpool_ebpf_common::maps::{FlowKey, NatEntry, Tuple};
    use spiderpool_ebpf_common::protocol;

    use super::is_orphan;

    #[test]
    fn a_half_that_a_new_flow_takes_over_meanwhile_is_no_orphan() {
        let key = FlowKey {
            pod: 1,
            protocol: protocol::UDP,
            tuple: Tuple::Translated as u8,
            local_port: 40_000,
            remote_port: 53,
            local: Addr::v4([10, 244, 1, 5]),
            remote: Addr::v4([10, 96, 0, 10]),
        };
        let (now, addr) = (100 * SECOND, Addr::v4([172, 18, 55, 180]));
        let old = NatEntry { last_seen: 0, addr, port: 40_000, state: 0, _pad: [0; 5] };
        assert!(is_orphan(&key, now, |asked| (*asked == key).then_some(old)));
        let new = NatEntry { last_seen: now, ..old };
        let mut reads = [Some(old), None, Some(new)].into_iter();
        assert!(!is_orphan(&key, now, |_| reads.next().flatten()));
        let mut reads = [Some(old), None, None].into_iter();
        assert!(!is_orphan(&key, now, |_| reads.next().flatten()), "gone meanwhile");
    }
}
