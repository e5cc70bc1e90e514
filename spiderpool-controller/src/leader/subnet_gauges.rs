//! The metrics of SpiderSubnets, as their status has them.

use std::pin::pin;

use futures::StreamExt as _;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde_json::{Map, Value};
use spiderpool_api::crd::SpiderSubnet;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::metrics::{SubnetCounts, SubnetGauges};

/// Follows the objects until shutdown.
pub(super) async fn run(client: Client, gauges: SubnetGauges, shutdown: CancellationToken) {
    let objects = watcher(Api::<SpiderSubnet>::all(client), watcher::Config::default());
    let mut events = pin!(objects.default_backoff());
    while let Some(Some(event)) = shutdown.run_until_cancelled(events.next()).await {
        match event {
            Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) => {
                gauges.set(name(&object), subnet_counts(&object));
            }
            Ok(watcher::Event::Delete(object)) => gauges.forget(name(&object)),
            Ok(watcher::Event::Init) => gauges.clear(),
            Ok(watcher::Event::InitDone) => {}
            Err(error) => warn!(%error, "watch of SpiderSubnets failed, trying again"),
        }
    }
}

fn name(object: &SpiderSubnet) -> &str {
    object.metadata.name.as_deref().unwrap_or_default()
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
