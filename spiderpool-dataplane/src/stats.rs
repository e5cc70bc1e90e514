//! The map `stats`: counters per NIC and reason, summed over CPUs.

use spiderpool_ebpf_common::maps::names;
use spiderpool_ebpf_common::reason::Reason;

use crate::error::MapError;
use crate::load::Dataplane;

impl Dataplane {
    /// Packets and bytes of a NIC by reason, in the order of [`Reason::ALL`], zeros included.
    pub fn stats(&self, id: u16) -> Result<Vec<(Reason, u64, u64)>, MapError> {
        let cpus = self.maps.stats.get(&u32::from(id), 0).map_err(MapError::of(names::STATS))?;
        Ok(Reason::ALL
            .iter()
            .map(|&reason| {
                let sum = cpus.iter().map(|counters| counters.as_array()[reason as usize]);
                let (packets, bytes) = sum.fold((0, 0), |(p, b), c| (p + c.packets, b + c.bytes));
                (reason, packets, bytes)
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_ebpf_common::reason::Reason;

    #[test]
    fn the_documentation_has_every_reason() {
        let doc = include_str!("../../docs/dataplane.md");
        for &reason in Reason::ALL {
            let row = format!("| `{}` | {} |", reason.name(), reason.text());
            assert!(doc.contains(&row), "docs/dataplane.md lacks the row: {row}");
        }
    }
}
