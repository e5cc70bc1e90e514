//! The node's pods that hold addresses, as the API server knows them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use spiderpool_api::crd::SpiderIPAddress;
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_core::names::{NodeName, PodName};
use spiderpool_runtime::kubernetes::Kubernetes;

/// Every pod of this node that runs and holds an address.
pub(super) async fn pods_with_addresses(node: &NodeName) -> Result<BTreeSet<PodName>, String> {
    let kube = Kubernetes::connect().await.map_err(|error| error.to_string())?;
    let addresses = Api::<SpiderIPAddress>::all(kube.client());
    let selector = format!("{}={}", labels::NODE, label_value(node.as_str()));
    let parameters = ListParams::default().labels(&selector);
    let held = match kube.read(addresses.list(&parameters)).await {
        Ok(list) => list.items,
        // The kind is gone, and with it all addresses.
        Err(failure) if failure.is_not_found() => return Ok(BTreeSet::new()),
        Err(failure) => return Err(format!("SpiderIPAddresses of {node}: {failure}")),
    };
    let mut pods = BTreeSet::new();
    for spec in held.into_iter().map(|address| address.spec) {
        let name = PodName::new(spec.pod_namespace.as_str(), spec.pod_name.as_str())
            .map_err(|error| format!("SpiderIPAddresses of {node}: {error}"))?;
        if pods.contains(&name) {
            continue;
        }
        let api = Api::<Pod>::namespaced(kube.client(), name.namespace());
        let pod = kube.read(api.get_metadata_opt(name.name())).await;
        let pod = pod.map_err(|failure| format!("pod {name}: {failure}"))?;
        if pod.is_some_and(|pod| spiderpool_api::pod::uid(&pod.metadata) == spec.pod_uid) {
            pods.insert(name);
        }
    }
    Ok(pods)
}
