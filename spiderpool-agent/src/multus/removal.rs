//! Takes Multus from the node: its configuration at once, so that the default CNI is the container runtime's first choice again;
//! program and kubeconfig when no pod is left that it has made. CRI-O and others end a pod by the configuration by which
//! they have started it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use spiderpool_core::multus_conf::{FILE, RENAMED_BY_CILIUM, is_ours};
use spiderpool_core::names::NodeName;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};

use super::conf_dir::remove;
use super::{kubeconfig, withdrawal};
use crate::node::installed;

/// What Multus' image brings.
const PLUGINS: [&str; 2] = ["multus", "passthru"];
/// How far the clocks of node and API server may be apart.
const CLOCKS: Duration = Duration::from_mins(1);

/// Takes Multus' configuration away if it is ours; whether it was there.
pub(crate) fn withdraw(conf_dir: &Path) -> io::Result<bool> {
    let paths = [FILE, RENAMED_BY_CILIUM].map(|name| conf_dir.join(name));
    let is_there = |path: &&PathBuf| fs::read_to_string(path).is_ok_and(|content| is_ours(&content));
    let ours: Vec<_> = paths.iter().filter(is_there).collect();
    // Where somebody else has removed it, it is the first time that this is asked.
    if !ours.is_empty() || !withdrawal::is_recorded(conf_dir) {
        // Before: who dies in between would leave no time. Pods of the moment after count as well.
        withdrawal::record(conf_dir)?;
    }
    ours.iter().try_for_each(|path| remove(path))?;
    Ok(!ours.is_empty())
}

/// Whether there is anything that [`remove_rest`] would remove.
pub(super) fn has_rest(conf_dir: &Path, cni_bin: &Path) -> bool {
    kubeconfig::is_there(conf_dir) || PLUGINS.iter().any(|name| installed::is_recorded(name, cni_bin))
}

/// Removes kubeconfig and program, if they are ours; what could not be removed.
pub(crate) fn remove_rest(conf_dir: &Path, cni_bin: &Path) -> Vec<String> {
    let mut failures = Vec::new();
    let path = conf_dir.join(kubeconfig::FILE);
    let own = kubeconfig::is_there(conf_dir).then(|| path.clone());
    for file in own.into_iter().chain([conf_dir.join(withdrawal::FILE)]) {
        failures.extend(remove(&file).err().map(|error| format!("{}: {error}", file.display())));
    }
    // Others may have put something there.
    let _in_use = path.parent().map(fs::remove_dir);
    for name in PLUGINS {
        failures.extend(installed::remove(name, cni_bin).err().map(|error| error.to_string()));
    }
    failures
}

/// The pods of a node that Multus may have made, because they began before `until`.
pub(crate) async fn pods_made_until(
    until: SystemTime,
    kube: &Kubernetes,
    node: &NodeName,
) -> Result<Vec<String>, ApiFailure> {
    let on_node = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let name = |pod: Pod| {
        let meta = &pod.metadata;
        let name =
            || [meta.namespace.as_deref(), meta.name.as_deref()].map(Option::unwrap_or_default).join("/");
        began_before(&pod, until + CLOCKS).then(name)
    };
    let pods = kube.pages_by(&Api::<Pod>::all(kube.client()), on_node, name).await?;
    Ok(pods.into_iter().flatten().collect())
}

/// Of a static pod, the object on the API server may be younger than the pod.
fn began_before(pod: &Pod, time: SystemTime) -> bool {
    if pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default() {
        return false;
    }
    let started = pod.status.as_ref().and_then(|status| status.start_time.as_ref());
    let times = [pod.metadata.creation_timestamp.as_ref(), started];
    let began = times.into_iter().flatten().map(|time| SystemTime::from(time.0)).min();
    began.is_none_or(|began| began < time)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pods_from_before_the_withdrawal_need_the_program_and_those_of_the_nodes_network_never() {
        let pod = |created: &str, started: &str, host_network: bool| -> Pod {
            serde_json::from_value(json!({
                "metadata": {"creationTimestamp": created}, "spec": {"hostNetwork": host_network, "containers": []},
                "status": {"startTime": started},
            }))
            .unwrap()
        };
        let at = |hour: u64| SystemTime::UNIX_EPOCH + Duration::from_hours(hour);
        let (two, four) = ("1970-01-01T02:00:00Z", "1970-01-01T04:00:00Z");
        assert!(began_before(&pod(two, two, false), at(3)));
        assert!(!began_before(&pod(two, two, true), at(3)));
        assert!(!began_before(&pod(four, four, false), at(3)));
        assert!(began_before(&pod(four, two, false), at(3)), "a static pod whose mirror was deleted");
        assert!(began_before(&Pod::default(), at(3)));
    }
}
