//! Addresses by pool and by subnet. A pool that is gone is forgotten, and all of them when another replica leads: what
//! nobody keeps up to date is not shown.

use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::leader::state::Occupancy;

/// The label's name is upstream's.
const POOL: &str = "SpiderIPPool";
/// The same.
const SUBNET: &str = "SpiderSubnet";

/// Whether what is there for debugging alone is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// It is not.
    Usual,
    /// It is.
    Debug,
}

/// Gauges of all objects of a kind, each by its name.
#[derive(Debug, Clone)]
struct ByName {
    kind: &'static str,
    gauges: Family<[(&'static str, String); 1], Gauge>,
}

impl ByName {
    fn register(registry: &mut Registry, kind: &'static str, name: &str, help: &str) -> Self {
        let gauges = Family::default();
        registry.register(name, help, Family::clone(&gauges));
        Self { kind, gauges }
    }

    fn set(&self, name: &str, value: i64) {
        self.gauges.get_or_create(&[(self.kind, name.to_owned())]).set(value);
    }

    fn forget(&self, name: &str) {
        self.gauges.remove(&[(self.kind, name.to_owned())]);
    }
}

/// What is shown of the addresses of pools. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct PoolGauges {
    total: ByName,
    used: ByName,
    free: ByName,
    kept: ByName,
    quarantined: ByName,
    debug: Option<[ByName; 2]>,
}

impl PoolGauges {
    pub(super) fn register(registry: &mut Registry, detail: Detail) -> Self {
        let mut by_name = |name: &str, help: &str| ByName::register(registry, POOL, name, help);
        let debug = (detail == Detail::Debug).then(|| {
            [
                by_name("spiderpool_debug_ippool_total_ip_counts", "Addresses of the pool"),
                by_name(
                    "spiderpool_debug_ippool_available_ip_counts",
                    "Addresses of the pool that are not in use",
                ),
            ]
        });
        Self {
            total: by_name("spiderpool_ippool_total_ips", "Addresses of the pool"),
            used: by_name("spiderpool_ippool_used_ips", "Addresses of the pool in use"),
            free: by_name("spiderpool_ippool_free_ips", "Addresses of the pool that are not in use"),
            kept: by_name(
                "spiderpool_ippool_kept_ips",
                "Addresses in use that wait for the next pod of a name",
            ),
            quarantined: by_name(
                "spiderpool_ippool_quarantined_ips",
                "Addresses in use that somebody else was seen using",
            ),
            debug,
        }
    }

    /// What is known of a pool now.
    pub(crate) fn set(&self, pool: &str, occupancy: &Occupancy) {
        let Occupancy { total, used, free, kept, quarantined } = *occupancy;
        self.total.set(pool, total);
        self.used.set(pool, used);
        self.free.set(pool, free);
        self.kept.set(pool, kept);
        self.quarantined.set(pool, quarantined);
        if let Some([all, available]) = &self.debug {
            all.set(pool, total);
            available.set(pool, free);
        }
    }

    /// The pool is gone, or nobody knows what it has.
    pub(crate) fn forget(&self, pool: &str) {
        self.all().for_each(|gauges| gauges.forget(pool));
    }

    pub(super) fn clear(&self) {
        self.all().for_each(|one| one.gauges.clear());
    }

    fn all(&self) -> impl Iterator<Item = &ByName> {
        let Self { total, used, free, kept, quarantined, debug } = self;
        [total, used, free, kept, quarantined].into_iter().chain(debug.iter().flatten())
    }
}

/// What the status of a SpiderSubnet says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SubnetCounts {
    /// Its addresses.
    pub(crate) total: i64,
    /// Those that pools have.
    pub(crate) used: i64,
    /// The pools that have some.
    pub(crate) pools: i64,
}

/// What is shown of the addresses of subnets. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct SubnetGauges {
    total: ByName,
    used: ByName,
    free: ByName,
    debug: Option<[ByName; 3]>,
}

impl SubnetGauges {
    pub(super) fn register(registry: &mut Registry, detail: Detail) -> Self {
        let mut by_name = |name: &str, help: &str| ByName::register(registry, SUBNET, name, help);
        let debug = (detail == Detail::Debug).then(|| {
            [
                by_name("spiderpool_debug_subnet_total_ip_counts", "Addresses of the subnet"),
                by_name(
                    "spiderpool_debug_subnet_available_ip_counts",
                    "Addresses of the subnet that no pool has",
                ),
                by_name("spiderpool_debug_subnet_ippool_counts", "Pools that have addresses of the subnet"),
            ]
        });
        Self {
            total: by_name("spiderpool_subnet_total_ips", "Addresses of the subnet"),
            used: by_name("spiderpool_subnet_used_ips", "Addresses of the subnet that pools have"),
            free: by_name("spiderpool_subnet_free_ips", "Addresses of the subnet that no pool has"),
            debug,
        }
    }

    /// What is known of a subnet now.
    pub(crate) fn set(&self, subnet: &str, counts: SubnetCounts) {
        let SubnetCounts { total, used, pools } = counts;
        let free = total.saturating_sub(used).max(0);
        self.total.set(subnet, total);
        self.used.set(subnet, used);
        self.free.set(subnet, free);
        if let Some([all, available, of_pools]) = &self.debug {
            all.set(subnet, total);
            available.set(subnet, free);
            of_pools.set(subnet, pools);
        }
    }

    /// The subnet is gone.
    pub(crate) fn forget(&self, subnet: &str) {
        self.all().for_each(|gauges| gauges.forget(subnet));
    }

    /// No subnet is known.
    pub(crate) fn clear(&self) {
        self.all().for_each(|one| one.gauges.clear());
    }

    fn all(&self) -> impl Iterator<Item = &ByName> {
        let Self { total, used, free, debug } = self;
        [total, used, free].into_iter().chain(debug.iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    fn values(registry: &Registry) -> Vec<String> {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    #[test]
    fn a_pool_that_is_gone_is_not_shown() {
        let mut registry = Registry::default();
        let gauges = PoolGauges::register(&mut registry, Detail::Usual);
        let occupancy = Occupancy { total: 9, used: 3, free: 6, kept: 1, quarantined: 1 };
        gauges.set("a", &occupancy);
        gauges.set("b", &occupancy);
        gauges.forget("b");
        let of_a = |name, value| format!(r#"spiderpool_ippool_{name}_ips{{SpiderIPPool="a"}} {value}"#);
        let wanted = [("total", 9), ("used", 3), ("free", 6), ("kept", 1), ("quarantined", 1)];
        assert_eq!(values(&registry), wanted.map(|(name, value)| of_a(name, value)));
        gauges.clear();
        assert!(values(&registry).is_empty());
    }

    #[test]
    fn names_for_debugging_are_upstreams_and_shown_on_request() {
        let mut registry = Registry::default();
        let pools = PoolGauges::register(&mut registry, Detail::Debug);
        pools.set("p", &Occupancy { total: 9, used: 3, free: 6, kept: 0, quarantined: 0 });
        let subnets = SubnetGauges::register(&mut registry, Detail::Debug);
        subnets.set("s", SubnetCounts { total: 9, used: 10, pools: 2 });
        let values = values(&registry);
        for line in [
            r#"spiderpool_debug_ippool_total_ip_counts{SpiderIPPool="p"} 9"#,
            r#"spiderpool_debug_ippool_available_ip_counts{SpiderIPPool="p"} 6"#,
            r#"spiderpool_debug_subnet_total_ip_counts{SpiderSubnet="s"} 9"#,
            r#"spiderpool_debug_subnet_available_ip_counts{SpiderSubnet="s"} 0"#,
            r#"spiderpool_debug_subnet_ippool_counts{SpiderSubnet="s"} 2"#,
            r#"spiderpool_subnet_used_ips{SpiderSubnet="s"} 10"#,
        ] {
            assert!(values.iter().any(|found| found == line), "{line} is missing in {values:?}");
        }
    }
}
