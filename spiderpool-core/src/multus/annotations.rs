//! Annotations of SpiderMultusConfigs and of what is made of them.

/// Name of the NetworkAttachmentDefinition; absent means the object's own.
pub const CR_NAME: &str = "multus.spidernet.io/cr-name";
/// `cniVersion` of the configuration.
pub const CNI_VERSION: &str = "multus.spidernet.io/cni-version";
/// `name` of the configuration; absent means that of the NetworkAttachmentDefinition.
pub const CNI_CONFIG_NAME: &str = "cni.spidernet.io/cniconfig-name";
/// Pods that ask for RDMA resources get this network.
pub const RDMA_RESOURCE_INJECT: &str = "cni.spidernet.io/rdma-resource-inject";
/// Pods that ask for network resources get this network.
pub const NETWORK_RESOURCE_INJECT: &str = "cni.spidernet.io/network-resource-inject";

/// On the NetworkAttachmentDefinition: the device plugin's resource, which Multus reads.
pub const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
/// What `kubectl apply` remembers of an object. It means that object and no other.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What may be written in [`CNI_VERSION`].
pub const CNI_VERSIONS: [&str; 4] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"];
/// What is written into configurations without [`CNI_VERSION`].
pub const DEFAULT_CNI_VERSION: &str = "0.3.1";
