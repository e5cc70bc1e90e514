//! How many pools and subnets there are, as every replica shows it, whether it leads or not.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Resource};
use prometheus_client::metrics::gauge::Gauge;
use serde::de::DeserializeOwned;
use spiderpool_api::crd::{SpiderIPPool, SpiderSubnet};
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::leader::metrics::Metrics;

/// Objects of a page, where the API server does not say how many follow.
const PAGE: u32 = 500;

/// Counts them until shutdown.
pub(super) async fn run(kube: Kubernetes, metrics: Metrics, period: Duration, shutdown: CancellationToken) {
    loop {
        let counting = async {
            update::<SpiderIPPool>(&kube, &metrics.pools).await;
            update::<SpiderSubnet>(&kube, &metrics.subnets).await;
            tokio::time::sleep(period).await;
        };
        if shutdown.run_until_cancelled(counting).await.is_none() {
            return;
        }
    }
}

async fn update<K>(kube: &Kubernetes, gauge: &Gauge)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    match count::<K>(kube).await {
        Ok(count) => {
            gauge.set(count);
        }
        Err(error) => warn!(kind = %K::kind(&()), %error, "objects are not counted now"),
    }
}

/// One page, as a rule: the API server says how many objects follow.
async fn count<K>(kube: &Kubernetes) -> Result<i64, ApiFailure>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api = Api::<K>::all(kube.client());
    let mut parameters = ListParams::default().limit(PAGE);
    let mut count = 0;
    loop {
        let page = kube.read(api.list_metadata(&parameters)).await?;
        count += page.items.len() as i64;
        match (page.metadata.continue_.filter(|token| !token.is_empty()), page.metadata.remaining_item_count)
        {
            (None, _) => return Ok(count),
            (_, Some(remaining)) => return Ok(count + remaining),
            (token, None) => parameters.continue_token = token,
        }
    }
}
