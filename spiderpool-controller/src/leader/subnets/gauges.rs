//! The metrics of SpiderSubnets, as their status has them.

use serde_json::{Map, Value};
use spiderpool_api::crd::SpiderSubnet;
use spiderpool_core::names::PoolName;

use crate::leader::metrics::{SubnetCounts, SubnetGauges};

/// Shows what is known of a subnet now; `None` of one that is gone.
pub(super) fn show(gauges: &SubnetGauges, name: &PoolName, object: Option<&SpiderSubnet>) {
    match object {
        Some(object) => gauges.set(name.as_str(), subnet_counts(object)),
        None => gauges.forget(name.as_str()),
    }
}

fn subnet_counts(object: &SpiderSubnet) -> SubnetCounts {
    let Some(status) = &object.status else { return SubnetCounts::default() };
    // What is not readable names no pool.
    let pools = status.controlled_ip_pools.as_deref().unwrap_or("{}");
    let pools = serde_json::from_str::<Map<String, Value>>(pools).unwrap_or_default();
    SubnetCounts {
        total: status.total_ip_count.unwrap_or_default(),
        used: status.allocated_ip_count.unwrap_or_default(),
        pools: i64::try_from(pools.len()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_subnet_has_what_its_status_says() {
        let counts = |status| {
            let object =
                json!({"metadata": {"name": "s"}, "spec": {"subnet": "10.6.0.0/16"}, "status": status});
            subnet_counts(&serde_json::from_value(object).unwrap())
        };
        assert_eq!(counts(json!(null)), SubnetCounts::default());
        let pools = r#"{"a":{"ips":["10.6.0.1"],"application":"x"},"b":{"ips":[]}}"#;
        let status = json!({"controlledIPPools": pools, "totalIPCount": 9, "allocatedIPCount": 1});
        assert_eq!(counts(status), SubnetCounts { total: 9, used: 1, pools: 2 });
        assert_eq!(counts(json!({"controlledIPPools": "none"})), SubnetCounts::default());
    }
}
