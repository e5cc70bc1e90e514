//! Configuration of a node's daemons.

use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{ProxyMode, images};
use crate::control_plane::Identity;
use crate::topology::addresses;

pub(super) fn containerd() -> String {
    let root = images::ROOT;
    let pause = images::PAUSE;
    // Nothing may lower its OOM score where root lacks CAP_SYS_RESOURCE.
    format!(
        r#"version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = [{}]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
"#,
        images::DISABLED_PLUGINS
    )
}

pub(super) fn kubelet(pki: &Path, user: &str) -> Value {
    let identity = Identity::of(pki, user);
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": "/",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.join("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": identity.certificate,
        "tlsPrivateKeyFile": identity.key,
        "clusterDNS": ["10.96.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": "/etc/resolv.conf",
        "failSwapOn": false,
        // What is the whole machine's: its disk is as full as it is, and its limits are not to be changed.
        "evictionHard": {
            "memory.available": "100Mi", "nodefs.available": "1%", "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20000,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "nodeStatusReportFrequency": "1m",
        "shutdownGracePeriod": "0s",
    })
}

pub(super) fn kube_proxy(kubeconfig: &Path, node: &str, mode: ProxyMode) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "mode": mode.to_string(),
        "hostnameOverride": node,
        "clusterCIDR": addresses::OVERLAY.join(","),
        // No OOM score and no conntrack limits: both are the whole machine's.
        "oomScoreAdj": 0,
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
        "iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"},
    })
}
