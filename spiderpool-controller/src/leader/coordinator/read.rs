//! Reads what a status is made of. A failure of the API server itself that may pass is returned, so that the status stays
//! as it is and the read is repeated. One that will not (missing rights), and all of kinds that other projects bring,
//! becomes a part of what was read: their API server or their conversion may be away for long.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Api;
use kube::api::{GetParams, ListParams};
use kube::core::ApiResource;
use serde::de::DeserializeOwned;
use spiderpool_api::crd::PodCidrType;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use spiderpool_runtime::watch::Shared;
use tracing::debug;

use super::cidrs::Cidrs;
use super::kinds::{self, Kind, ObjectName};
use super::outcome::Read;
use super::sources::cilium::CiliumConfig;
use super::sources::cni_config::{self, CniConfig};
use super::sources::control_plane::{self, ControlPlane, ControlPlanePod};
use super::sources::kubeadm::{self, Kubeadm};
use super::sources::{Agents, Sources, calico, cilium, service_cidrs};
use crate::leader::state::ClusterState;

/// How long the second of two places of the same objects is waited for: a request to a server of an extension that is
/// away is repeated until its time is over.
const SECOND_PLACE: Duration = Duration::from_secs(2);
/// Longer files are no CNI configuration.
const MAX_FILE: u64 = 1 << 20;

/// Reads the sources.
pub(super) struct Reader {
    kube: Kubernetes,
    state: Shared<ClusterState>,
    cilium: ObjectName,
    cni_directory: Option<PathBuf>,
}

impl Reader {
    pub(super) fn new(
        kube: Kubernetes,
        state: Shared<ClusterState>,
        cilium: ObjectName,
        cni_directory: Option<PathBuf>,
    ) -> Self {
        Self { kube, state, cilium, cni_directory }
    }

    /// Everything that this type is made of, now. `None` while the leader's watch of nodes has not listed.
    pub(super) async fn read(&self, kind: PodCidrType) -> Result<Option<Sources>, ApiFailure> {
        let Some(nodes) = self.state.read(|state| state.node_cidrs.merged()) else { return Ok(None) };
        let (service_cidrs, kubeadm, control_plane) =
            tokio::try_join!(self.service_cidrs(), self.kubeadm(), self.control_plane())?;
        let (namespace, name) = &self.cilium;
        let cilium_config_map = format!("{namespace}/{name}");
        let mut sources =
            Sources { service_cidrs, kubeadm, control_plane, nodes, cilium_config_map, ..Sources::default() };
        if kinds::CALICO.contains(&kind) {
            sources.calico = self.calico().await;
        }
        if kinds::CILIUM.contains(&kind) {
            sources.cilium = self.cilium().await?;
            sources.cilium_pools = self.cilium_pools().await;
        }
        if kind == PodCidrType::Auto {
            sources.agents = self.agents().await?;
            sources.cni = self.cni().await;
        }
        Ok(Some(sources))
    }

    async fn service_cidrs(&self) -> Result<Read<Cidrs>, ApiFailure> {
        Ok(optional(self.list(&kinds::SERVICE_CIDRS).await)?.map(service_cidrs::cidrs))
    }

    async fn kubeadm(&self) -> Result<Read<Kubeadm>, ApiFailure> {
        let (namespace, name) = kubeadm::CONFIG_MAP;
        let data = match optional(self.config_map(namespace, name).await)? {
            Read::Absent => return Ok(Read::Absent),
            Read::Failed(error) => return Ok(Read::Failed(error)),
            Read::Found(data) => data,
        };
        Ok(data.get(kubeadm::KEY).map_or(Read::Absent, |text| kubeadm::parse(text)))
    }

    async fn control_plane(&self) -> Result<Read<ControlPlane>, ApiFailure> {
        let resource = ApiResource::erase::<Pod>(&());
        let pods: Api<ControlPlanePod> =
            Api::namespaced_with(self.kube.client(), kinds::CONTROL_PLANE_NAMESPACE, &resource);
        let mut all = Vec::new();
        for labels in kinds::CONTROL_PLANE {
            match optional(
                self.kube.read(pods.list(&ListParams::default().labels(labels).match_any())).await,
            )? {
                Read::Found(list) => all.extend(list.items),
                Read::Absent => {}
                Read::Failed(error) => return Ok(Read::Failed(error)),
            }
        }
        Ok(if all.is_empty() { Read::Absent } else { Read::Found(control_plane::networks(all)) })
    }

    async fn calico(&self) -> Read<Cidrs> {
        let crd = foreign(self.list::<calico::IpPool>(&kinds::CALICO_POOLS).await);
        // Calico's own API server: that it is away must not look as if the cluster's were.
        let shown = self.list::<calico::IpPool>(&kinds::CALICO_API_POOLS);
        let shown = if crd.found().is_some_and(|pools| !pools.is_empty()) {
            let failed = Read::Failed(format!("Calico's API server did not answer within {SECOND_PLACE:?}"));
            tokio::time::timeout(SECOND_PLACE, shown).await.map_or(failed, foreign)
        } else {
            foreign(shown.await)
        };
        calico::of_both_groups(crd, shown).map(calico::cidrs)
    }

    async fn cilium(&self) -> Result<Read<CiliumConfig>, ApiFailure> {
        let (namespace, name) = &self.cilium;
        let object = format!("ConfigMap {namespace}/{name}");
        let data = optional(self.config_map(namespace, name).await)?;
        Ok(data.map(|data| cilium::parse(&object, &data)))
    }

    async fn cilium_pools(&self) -> Read<Cidrs> {
        foreign(self.list(&kinds::CILIUM_POOLS).await).map(cilium::cidrs)
    }

    async fn agents(&self) -> Result<Read<Agents>, ApiFailure> {
        let cilium = [kinds::CONTROL_PLANE_NAMESPACE, &self.cilium.0];
        let agents = tokio::try_join!(
            self.any_runs(kinds::CALICO_AGENT, &kinds::CALICO_NAMESPACES),
            self.any_runs(kinds::CILIUM_AGENT, &cilium),
        );
        optional(agents.map(|(calico, cilium)| Agents { calico, cilium }))
    }

    /// Whether a DaemonSet of this name has a pod on some node, in one of the namespaces.
    async fn any_runs(&self, name: &str, namespaces: &[&str]) -> Result<bool, ApiFailure> {
        for namespace in namespaces {
            let sets: Api<DaemonSet> = Api::namespaced(self.kube.client(), namespace);
            match self.kube.read(sets.get_with(name, &GetParams::any())).await {
                Ok(set) if set.status.as_ref().is_some_and(|status| status.current_number_scheduled > 0) => {
                    return Ok(true);
                }
                Ok(_) => {}
                Err(failure) if failure.is_not_found() => {}
                Err(failure) => return Err(failure),
            }
        }
        Ok(false)
    }

    async fn cni(&self) -> Option<CniConfig> {
        let directory = self.cni_directory.as_deref()?;
        let read = read_cni(directory).await;
        read.inspect_err(|error| debug!(?directory, %error, "directory for CNI configuration cannot be read"))
            .ok()
            .flatten()
    }

    /// All objects of a kind in the first version that is served.
    async fn list<K>(&self, kind: &Kind) -> Result<Vec<K>, ApiFailure>
    where
        K: kube::Resource<DynamicType = ApiResource> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let mut outcome = Ok(Vec::new());
        for resource in kind.resources() {
            let api: Api<K> = Api::all_with(self.kube.client(), &resource);
            outcome = self.kube.pages(&api, |object| object).await;
            if !outcome.as_ref().is_err_and(ApiFailure::is_not_found) {
                break;
            }
        }
        outcome
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, ApiFailure> {
        let maps: Api<ConfigMap> = Api::namespaced(self.kube.client(), namespace);
        self.kube.read(maps.get(name)).await.map(|map| map.data.unwrap_or_default())
    }
}

/// What does not exist is absent, what is refused has failed.
fn optional<T>(outcome: Result<T, ApiFailure>) -> Result<Read<T>, ApiFailure> {
    match outcome {
        Ok(value) => Ok(Read::Found(value)),
        Err(failure) if failure.is_not_found() => Ok(Read::Absent),
        Err(failure @ ApiFailure::Refused(_)) if !failure.is_retryable() => {
            Ok(Read::Failed(failure.to_string()))
        }
        Err(failure) => Err(failure),
    }
}

/// Of a kind that another project brings: every other failure is that project's.
fn foreign<T>(outcome: Result<T, ApiFailure>) -> Read<T> {
    match outcome {
        Ok(value) => Read::Found(value),
        Err(failure) if failure.is_not_found() => Read::Absent,
        Err(failure) => Read::Failed(failure.to_string()),
    }
}

async fn read_cni(directory: &Path) -> io::Result<Option<CniConfig>> {
    let mut entries = tokio::fs::read_dir(directory).await?;
    let mut files = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        files.extend(entry.file_name().into_string());
    }
    let Some(file) = cni_config::choose(files) else { return Ok(None) };
    let path = directory.join(&file);
    let is_small = tokio::fs::metadata(&path).await.is_ok_and(|meta| meta.len() <= MAX_FILE);
    let content = if is_small { tokio::fs::read_to_string(&path).await.ok() } else { None };
    Ok(Some(cni_config::parse(&file, content.as_deref())))
}

#[cfg(test)]
mod tests;
