//! Which addresses of a pool are in use, as the API server says at this moment. Listed when a pool shrinks or is deleted,
//! which is rare: no replica keeps all addresses of the cluster in memory for it, and what a watch has not seen yet is not
//! missed.
//!
//! The API server does not say who it is, so anybody who reaches the port may ask. What is answered names no pod, and is
//! taken from what is stored; and nobody has the API server list for more than a few reviews at a time, nor for a pool
//! whose UID they do not know.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use kube::core::DynamicObject;
use serde::Deserialize;
use serde_json::Value;
use spiderpool_api::crd::{AddressState, SpiderIPAddress, SpiderIPPool};
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_runtime::kubernetes::Kubernetes;
use spiderpool_runtime::pools::{AllocationOwner, PoolObject};
use tokio::sync::Semaphore;

use super::response::ReviewError;

/// Checks at a time.
const CHECKS: usize = 2;
/// Looks at the UID of a pool at a time, which are short.
const LOOKS: usize = 8;
/// Shorter than the deadline of a review, so that the answer says what has taken so long.
const LIMIT: Duration = Duration::from_secs(3);

/// Asks for addresses in use.
pub(super) struct AddressesInUse {
    kube: Kubernetes,
    checks: Semaphore,
    looks: Semaphore,
    limit: Duration,
}

impl AddressesInUse {
    pub(super) fn new(kube: Kubernetes) -> Self {
        Self::within(kube, LIMIT)
    }

    pub(super) fn within(kube: Kubernetes, limit: Duration) -> Self {
        Self { kube, checks: Semaphore::new(CHECKS), looks: Semaphore::new(LOOKS), limit }
    }

    /// Those of the stored pool that are not `kept`. The pool is the one that the review is about, with its UID.
    pub(super) async fn of(
        &self,
        pool: &str,
        uid: Option<&str>,
        kept: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<IpAddr>, ReviewError> {
        match tokio::time::timeout(self.limit, self.list(pool, uid, kept)).await {
            Ok(listed) => listed,
            Err(_) => Err(ReviewError::Late(self.limit)),
        }
    }

    async fn list(
        &self,
        pool: &str,
        uid: Option<&str>,
        kept: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<IpAddr>, ReviewError> {
        let kind = kube::core::ApiResource::erase::<SpiderIPPool>(&());
        let pools = Api::<DynamicObject>::all_with(self.kube.client(), &kind);
        // The UID and not the version: status changes with every pod, and the API server asks again about what has changed.
        let seen = {
            // The semaphores are never closed.
            let _place = self.looks.acquire().await;
            self.kube.read(pools.get_metadata_opt(pool)).await?
        };
        let Some(seen) = seen else { return Ok(Vec::new()) };
        if seen.metadata.uid.as_deref() != uid {
            return Err(ReviewError::AnotherPool);
        }
        let _place = self.checks.acquire().await;
        let Some(stored) = self.kube.read(pools.get_opt(pool)).await? else { return Ok(Vec::new()) };
        let reduce = |address: SpiderIPAddress| {
            let ip: IpAddr = address.spec.address.split('/').next()?.parse().ok()?;
            // Who sees that somebody else has an address takes it out of the pool.
            let is_in_use = address.spec.state != AddressState::Quarantined;
            (address.spec.pool == pool && is_in_use && !kept(ip)).then_some(ip)
        };
        let selector = format!("{}={}", labels::ADDRESS_POOL, label_value(pool));
        let addresses = Api::<SpiderIPAddress>::all(self.kube.client());
        let listed = self.kube.pages_by(&addresses, ListParams::default().labels(&selector), reduce).await?;
        let mut in_use: Vec<_> = listed.into_iter().flatten().collect();
        let stored = serde_json::to_value(stored).unwrap_or_default();
        in_use.extend(upstream_allocations(&stored).into_iter().filter(|ip| !kept(*ip)));
        Ok(in_use)
    }
}

/// Of upstream's agents, whose allocations are in the pool's status alone.
fn upstream_allocations(pool: &Value) -> Vec<IpAddr> {
    let Ok(object) = PoolObject::deserialize(pool) else { return Vec::new() };
    if AllocationOwner::of(&object) != AllocationOwner::Upstream {
        return Vec::new();
    }
    let records = pool["status"]["allocatedIPs"].as_str().unwrap_or_default();
    let records: BTreeMap<IpAddr, Value> = serde_json::from_str(records).unwrap_or_default();
    records.into_keys().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn allocations_of_upstream_count_as_in_use() {
        let records = r#"{"10.6.0.1":{"pod":"ns1/web","podUid":"u"}}"#;
        let mut pool = json!({
            "metadata": {"name": "p"}, "spec": {"subnet": "10.6.0.0/24"}, "status": {"allocatedIPs": records},
        });
        assert_eq!(upstream_allocations(&pool), ["10.6.0.1".parse::<IpAddr>().unwrap()]);
        pool["status"] = json!({"allocatedIPs": "garbage"});
        assert_eq!(upstream_allocations(&pool), [] as [IpAddr; 0]);
    }

    #[tokio::test]
    async fn an_api_server_that_does_not_answer_is_waited_for_no_longer_than_the_webhook_is() {
        let hangs = tower::service_fn(|_: axum::http::Request<kube::client::Body>| {
            std::future::pending::<Result<axum::http::Response<kube::client::Body>, std::io::Error>>()
        });
        let kube = Kubernetes::new(kube::Client::new(hangs, "default"));
        let in_use = AddressesInUse::within(kube, Duration::from_millis(20));
        let error = in_use.of("p", Some("u"), |_| false).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot find out which addresses are in use within"), "{error}");
    }
}
