//! SpiderReservedIPs: addresses that no pod gets.

use std::collections::BTreeMap;

use spiderpool_api::crd::SpiderReservedIP;
use spiderpool_core::ip::{Family, IpRange, IpSet};
use tracing::warn;

use super::Index;

/// The ranges of each object.
#[derive(Debug, Default)]
pub struct ReservedIndex(BTreeMap<String, Vec<IpRange>>);

impl ReservedIndex {
    /// All reserved addresses of a family.
    pub fn of_family(&self, family: Family) -> IpSet {
        IpSet::from_ranges(family, self.0.values().flatten().copied())
    }
}

impl Index<SpiderReservedIP> for ReservedIndex {
    fn apply(&mut self, object: SpiderReservedIP) {
        let name = object.metadata.name.unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() {
            self.0.remove(&name);
            return;
        }
        let parse = |text: &String| {
            let range = text.parse::<IpRange>();
            range
                .inspect_err(|error| warn!(%error, object = name, "entry of a SpiderReservedIP is left out"))
                .ok()
        };
        let ranges = object.spec.ips.iter().filter_map(parse).collect();
        self.0.insert(name, ranges);
    }

    fn delete(&mut self, object: &SpiderReservedIP) {
        self.0.remove(object.metadata.name.as_deref().unwrap_or_default());
    }

    fn reset(&mut self, objects: Vec<SpiderReservedIP>) {
        self.0.clear();
        for object in objects {
            self.apply(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_api::crd::SpiderReservedIPSpec;

    use super::*;

    fn reserved(name: &str, ips: &[&str]) -> SpiderReservedIP {
        let ips = ips.iter().map(|ip| (*ip).to_owned()).collect();
        SpiderReservedIP::new(name, SpiderReservedIPSpec { ip_version: None, ips })
    }

    #[test]
    fn objects_add_up_and_bad_entries_cost_only_themselves() {
        let mut index = ReservedIndex::default();
        index.apply(reserved("a", &["10.0.0.1-10.0.0.3", "x"]));
        index.apply(reserved("b", &["10.0.0.3-10.0.0.4", "fd00::1"]));
        assert_eq!((index.of_family(Family::V4).len(), index.of_family(Family::V6).len()), (4, 1));
        index.delete(&reserved("a", &[]));
        assert_eq!(index.of_family(Family::V4).len(), 2);
        index.reset(vec![]);
        assert!(index.of_family(Family::V4).is_empty());
    }
}
