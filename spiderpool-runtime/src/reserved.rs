//! SpiderReservedIPs: addresses that no pod gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use spiderpool_api::crd::SpiderReservedIP;
use spiderpool_core::ip::{Family, IpRange, IpSet};
use spiderpool_core::ipam::reserved::{ReservedError, parse_reserved};
use tracing::warn;

use crate::watch::Index;

/// The ranges of each object, and what is wrong with it.
#[derive(Debug, Default)]
pub struct ReservedIndex(BTreeMap<String, (Vec<IpRange>, Option<Arc<ReservedError>>)>);

impl ReservedIndex {
    /// All reserved addresses of a family; fails if an object does not say which it means.
    pub fn of_family(&self, family: Family) -> Result<IpSet, Arc<ReservedError>> {
        let mut errors = self.0.values().filter_map(|(_, error)| error.as_ref());
        if let Some(error) = errors.find(|error| error.concerns(family)) {
            return Err(Arc::clone(error));
        }
        Ok(IpSet::from_ranges(family, self.0.values().flat_map(|(ranges, _)| ranges).copied()))
    }
}

impl Index<SpiderReservedIP> for ReservedIndex {
    fn apply(&mut self, object: SpiderReservedIP) {
        let name = object.metadata.name.unwrap_or_default();
        if object.metadata.deletion_timestamp.is_some() {
            self.0.remove(&name);
            return;
        }
        let (ranges, error) = parse_reserved(&name, &object.spec.ips);
        if let Some(error) = &error {
            warn!(%error, "no addresses are given out while it is not known which are reserved");
        }
        self.0.insert(name, (ranges, error.map(Arc::new)));
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
    fn objects_add_up() {
        let mut index = ReservedIndex::default();
        index.apply(reserved("a", &["10.0.0.1-10.0.0.3"]));
        index.apply(reserved("b", &["10.0.0.3-10.0.0.4", "fd00::1"]));
        let count = |index: &ReservedIndex, family| index.of_family(family).unwrap().len();
        assert_eq!((count(&index, Family::V4), count(&index, Family::V6)), (4, 1));
        index.delete(&reserved("a", &[]));
        assert_eq!(count(&index, Family::V4), 2);
        index.reset(vec![]);
        assert_eq!(count(&index, Family::V4), 0);
    }

    /// What it reserves may be in use outside of the cluster; a line in a log kept nobody from giving it out.
    #[test]
    fn an_object_that_is_invalid_stops_its_family_until_it_is_corrected() {
        let mut index = ReservedIndex::default();
        index.apply(reserved("a", &["10.0.0.9-10.0.0.1"]));
        index.apply(reserved("b", &["10.0.0.3", "fd00::1"]));
        let error = index.of_family(Family::V4).unwrap_err().to_string();
        assert!(error.starts_with("SpiderReservedIP a is invalid: spec.ips[0]: "), "{error}");
        assert_eq!(index.of_family(Family::V6).unwrap().len(), 1);
        index.apply(reserved("a", &["10.0.0.1-10.0.0.9"]));
        assert_eq!(index.of_family(Family::V4).unwrap().len(), 9);
    }
}
