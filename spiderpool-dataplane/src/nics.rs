//! The map `nics`: one entry per NIC id; and the NICs' addresses.

use std::net::IpAddr;

use aya::maps::PerCpuValues;
use spiderpool_ebpf_common::maps::{NicEntry, ROLE_NONE, names};
use spiderpool_ebpf_common::reason::Counters;

use crate::error::MapError;
use crate::load::Dataplane;

impl Dataplane {
    /// Writes the entry of a NIC id.
    pub fn nic_put(&mut self, id: u16, nic: &NicEntry) -> Result<(), MapError> {
        self.check_id(id)?;
        self.maps.nics.set(u32::from(id), nic, 0).map_err(MapError::of(names::NICS))
    }

    /// Empties the entry of a NIC id, forgets its addresses and sets its counters to zero. Idempotent. An id that does
    /// not fit has no entry: the map was larger when it was given out.
    pub fn nic_remove(&mut self, id: u16) -> Result<(), MapError> {
        self.addresses_set(id, 0, &[])?;
        if id > self.max_id() {
            return Ok(());
        }
        self.nic_put(id, &NicEntry::default())?;
        let cpus = aya::util::nr_cpus().map_err(|(_, e)| MapError::System(e))?;
        let zero = PerCpuValues::try_from(vec![Counters::default(); cpus]).map_err(MapError::System)?;
        self.maps.stats.set(u32::from(id), zero, 0).map_err(MapError::of(names::STATS))
    }

    /// Makes the addresses of a NIC of a pod exactly these.
    pub fn addresses_set(&mut self, id: u16, pod: u16, addresses: &[IpAddr]) -> Result<(), MapError> {
        self.maps.addresses.set(id, pod, addresses)
    }

    /// The entry of a NIC id, if it is in use.
    pub fn nic(&self, id: u16) -> Result<Option<NicEntry>, MapError> {
        self.check_id(id)?;
        let entry = self.maps.nics.get(&u32::from(id), 0).map_err(MapError::of(names::NICS))?;
        Ok((entry.role != ROLE_NONE).then_some(entry))
    }

    /// All NIC ids in use, with their entries.
    pub fn nics(&self) -> Result<Vec<(u16, NicEntry)>, MapError> {
        let mut out = Vec::new();
        for id in 1..=self.max_id() {
            out.extend(self.nic(id)?.map(|entry| (id, entry)));
        }
        Ok(out)
    }

    /// The largest NIC id that fits.
    pub fn max_id(&self) -> u16 {
        u16::try_from(self.maps.nics.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }

    fn check_id(&self, id: u16) -> Result<(), MapError> {
        let max = self.max_id();
        if id == 0 || id > max { Err(MapError::NicId { id, max: u32::from(max) }) } else { Ok(()) }
    }
}
