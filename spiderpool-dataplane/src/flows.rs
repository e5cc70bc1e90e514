//! The maps `arrivals` and `nat`: flows end here when a pod goes or their time is over.

use spiderpool_ebpf_common::life;
use spiderpool_ebpf_common::maps::{BACK, NatEntry, NatKey, OUT, names};

use crate::error::MapError;
use crate::load::Dataplane;

/// What [`Dataplane::expire`] found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Expired {
    /// Translations (pairs of entries) that were removed.
    pub removed: usize,
    /// Entries of half a pair that were removed.
    pub orphans: usize,
    /// Entries that are left in `nat`.
    pub left: usize,
}

/// The key that a translation's other entry has.
fn partner(key: &NatKey, entry: &NatEntry) -> NatKey {
    NatKey {
        direction: if key.direction == OUT { BACK } else { OUT },
        local: entry.addr,
        local_port: entry.port,
        ..*key
    }
}

/// CLOCK_MONOTONIC in ns, which is what `bpf_ktime_get_ns` counts.
fn now() -> Result<u64, MapError> {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map_err(|e| MapError::System(e.into()))?;
    Ok(time.tv_sec() as u64 * life::SECOND + time.tv_nsec() as u64)
}

impl Dataplane {
    /// Removes all flows of a pod (its id is its cluster NIC's id).
    pub fn pod_flush(&mut self, pod: u16) -> Result<(), MapError> {
        let arrivals: Vec<_> = self.maps.arrivals.keys().filter_map(Result::ok).collect();
        for key in arrivals.iter().filter(|key| key.pod == pod) {
            gone_is_fine(self.maps.arrivals.remove(key)).map_err(MapError::of(names::ARRIVALS))?;
        }
        let nat: Vec<_> = self.maps.nat.keys().filter_map(Result::ok).collect();
        for key in nat.iter().filter(|key| key.pod == pod) {
            gone_is_fine(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
        }
        Ok(())
    }

    /// Removes the translations whose time is over, and halves whose other half is missing.
    ///
    /// The programs ignore such entries anyway; this makes room. To be called every few seconds.
    pub fn expire(&mut self) -> Result<Expired, MapError> {
        let now = now()?;
        let all: Vec<(NatKey, NatEntry)> = self.maps.nat.iter().filter_map(Result::ok).collect();
        let mut result = Expired::default();
        for (key, _) in &all {
            if key.direction == OUT {
                result.removed += usize::from(self.expire_pair(key, now)?);
            } else if self.is_orphan(key, now) {
                gone_is_fine(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
                result.orphans += 1;
            }
        }
        result.left = all.len().saturating_sub(2 * result.removed + result.orphans);
        Ok(result)
    }

    /// Reads the entry again, because a packet may have come since the listing.
    fn expire_pair(&mut self, key: &NatKey, now: u64) -> Result<bool, MapError> {
        let Ok(entry) = self.maps.nat.get(key, 0) else { return Ok(false) };
        if !life::is_over(key.protocol, entry.state, entry.last_seen, now) {
            return Ok(false);
        }
        gone_is_fine(self.maps.nat.remove(key)).map_err(MapError::of(names::NAT))?;
        let back = partner(key, &entry);
        if self.maps.nat.get(&back, 0).is_ok_and(|b| partner(&back, &b) == *key) {
            gone_is_fine(self.maps.nat.remove(&back)).map_err(MapError::of(names::NAT))?;
        }
        Ok(true)
    }

    /// The `BACK` entry is made first, so a young one may just be waiting for its `OUT` entry. One that went with
    /// its `OUT` entry since the listing is none.
    fn is_orphan(&self, key: &NatKey, now: u64) -> bool {
        let Ok(entry) = self.maps.nat.get(key, 0) else { return false };
        let out = partner(key, &entry);
        let named = self.maps.nat.get(&out, 0).is_ok_and(|o| partner(&out, &o) == *key);
        !named && now.saturating_sub(entry.last_seen) > life::SECOND
    }
}

/// Another CPU, the LRU or the program may have removed the entry first.
fn gone_is_fine(result: Result<(), aya::maps::MapError>) -> Result<(), aya::maps::MapError> {
    match result {
        Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        other => other,
    }
}
