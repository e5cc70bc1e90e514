//! The kinds whose objects name CIDRs, in all versions in which they may be served, and who reads what.

use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::Client;
use kube::Resource;
use kube::api::ListParams;
use kube::core::{ApiResource, DynamicObject, GroupVersionKind, PartialObjectMeta};
use kube::runtime::watcher;
use spiderpool_api::crd::PodCidrType;

use super::sources::kubeadm;

/// A kind that a cluster may have or not.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    group: &'static str,
    /// The preferred one first.
    versions: &'static [&'static str],
    name: &'static str,
    plural: &'static str,
}

/// Kubernetes 1.33 and later, 1.31 and later.
pub(super) const SERVICE_CIDRS: Kind = Kind {
    group: "networking.k8s.io",
    versions: &["v1", "v1beta1"],
    name: "ServiceCIDR",
    plural: "servicecidrs",
};
/// As Calico stores them.
pub(super) const CALICO_POOLS: Kind =
    Kind { group: "crd.projectcalico.org", versions: &["v1"], name: "IPPool", plural: "ippools" };
/// As Calico's API server shows them, or as a definition of the same group has them where there is no such server.
pub(super) const CALICO_API_POOLS: Kind =
    Kind { group: "projectcalico.org", versions: &["v3"], name: "IPPool", plural: "ippools" };
/// Cilium's pools for `ipam: multi-pool`.
pub(super) const CILIUM_POOLS: Kind = Kind {
    group: "cilium.io",
    versions: &["v2", "v2alpha1"],
    name: "CiliumPodIPPool",
    plural: "ciliumpodippools",
};

impl Kind {
    /// The kind in each version.
    pub(super) fn resources(&self) -> impl Iterator<Item = ApiResource> {
        self.versions.iter().map(|version| {
            let kind = GroupVersionKind::gvk(self.group, version, self.name);
            ApiResource::from_gvk_with_plural(&kind, self.plural)
        })
    }
}

/// Namespace and name.
pub(super) type ObjectName = (String, String);

/// Pods of the control plane, by the labels that kubeadm, RKE2 (`component`) and Talos (`k8s-app`) give them.
pub(super) const CONTROL_PLANE: [&str; 2] = [
    "component in (kube-controller-manager,kube-apiserver)",
    "k8s-app in (kube-controller-manager,kube-apiserver)",
];
/// Where they are.
pub(super) const CONTROL_PLANE_NAMESPACE: &str = "kube-system";

/// DaemonSets of node agents, by which a network that is at work is known from one whose objects were left behind. By
/// name, in namespaces of the cluster's own: a pod of a tenant may have any label.
pub(super) const CALICO_AGENT: &str = "calico-node";
/// That of Cilium, also in the namespace of its ConfigMap.
pub(super) const CILIUM_AGENT: &str = "cilium";
/// Where Calico's manifests have it, and where its operator does.
pub(super) const CALICO_NAMESPACES: [&str; 2] = [CONTROL_PLANE_NAMESPACE, "calico-system"];

/// All that a watch is told of an object: what changed is read when the status is made.
pub(super) type WatchedObject = PartialObjectMeta<DynamicObject>;

/// Objects that are watched for changes.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// For the log.
    pub(super) name: &'static str,
    /// The kind in each version in which it may be served.
    pub(super) resources: Vec<ApiResource>,
    namespace: Option<String>,
    fields: Option<String>,
    labels: Option<&'static str>,
    /// The types that read them.
    pub(super) types: &'static [PodCidrType],
}

/// Also `none`, for the Service CIDRs.
const ALL: &[PodCidrType] =
    &[PodCidrType::Auto, PodCidrType::Cluster, PodCidrType::Calico, PodCidrType::Cilium, PodCidrType::None];
/// What reads Calico's pools.
pub(super) const CALICO: &[PodCidrType] = &[PodCidrType::Auto, PodCidrType::Calico];
/// What reads Cilium's objects.
pub(super) const CILIUM: &[PodCidrType] = &[PodCidrType::Auto, PodCidrType::Cilium];

impl Watched {
    fn all(name: &'static str, kind: Kind, types: &'static [PodCidrType]) -> Self {
        let resources = kind.resources().collect();
        Self { name, resources, namespace: None, fields: None, labels: None, types }
    }

    fn core<K: Resource<DynamicType = ()>>(
        name: &'static str,
        namespace: &str,
        types: &'static [PodCidrType],
    ) -> Self {
        let resources = vec![ApiResource::erase::<K>(&())];
        Self { name, resources, namespace: Some(namespace.to_owned()), fields: None, labels: None, types }
    }

    fn named(mut self, name: &str) -> Self {
        self.fields = Some(format!("metadata.name={name}"));
        self
    }

    fn labelled(mut self, labels: &'static str) -> Self {
        self.labels = Some(labels);
        self
    }

    /// The objects in one of the versions.
    pub(super) fn api(&self, client: Client, resource: &ApiResource) -> Api<WatchedObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, resource),
            None => Api::all_with(client, resource),
        }
    }

    /// What is asked of a watch.
    pub(super) fn config(&self) -> watcher::Config {
        let mut config = watcher::Config::default();
        config.field_selector.clone_from(&self.fields);
        config.label_selector = self.labels.map(ToOwned::to_owned);
        config
    }

    /// A list that shows whether the kind is served.
    pub(super) fn probe(&self) -> ListParams {
        let mut parameters = ListParams::default().limit(1);
        parameters.field_selector.clone_from(&self.fields);
        parameters.label_selector = self.labels.map(ToOwned::to_owned);
        parameters
    }
}

/// Everything from which a status is made, except nodes, whose watch is the leader's.
pub(super) fn watched(coordinator: &str, (namespace, name): &ObjectName) -> Vec<Watched> {
    use spiderpool_api::crd::SpiderCoordinator;
    let coordinators = ApiResource::erase::<SpiderCoordinator>(&());
    let own = Watched {
        name: "SpiderCoordinator",
        resources: vec![coordinators],
        namespace: None,
        fields: None,
        labels: None,
        types: ALL,
    };
    let kubeadm = Watched::core::<core::ConfigMap>("kubeadm-config", kubeadm::CONFIG_MAP.0, ALL);
    let cilium = Watched::core::<core::ConfigMap>("Cilium's ConfigMap", namespace, CILIUM);
    let control_plane = || Watched::core::<core::Pod>("control plane", CONTROL_PLANE_NAMESPACE, ALL);
    let [by_component, by_app] = CONTROL_PLANE;
    vec![
        own.named(coordinator),
        kubeadm.named(kubeadm::CONFIG_MAP.1),
        cilium.named(name),
        Watched::all("ServiceCIDRs", SERVICE_CIDRS, ALL),
        Watched::all("Calico's IPPools", CALICO_POOLS, CALICO),
        Watched::all("IPPools of Calico's API server", CALICO_API_POOLS, CALICO),
        Watched::all("CiliumPodIPPools", CILIUM_POOLS, CILIUM),
        control_plane().labelled(by_component),
        control_plane().labelled(by_app),
    ]
}
