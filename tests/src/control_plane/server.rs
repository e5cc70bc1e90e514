//! kube-apiserver's command line.

use std::path::Path;

use super::certificates::{Authority, Identity};

/// Flags of every API server here.
pub(crate) fn arguments(
    authority: &Authority,
    serving: &Identity,
    etcd: &str,
    service_cidrs: &[String],
) -> Vec<String> {
    let (token_key, token_public_key) = authority.token_keys();
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    vec![
        file("tls-cert-file", &serving.certificate),
        file("tls-private-key-file", &serving.key),
        file("client-ca-file", &authority.certificate()),
        file("service-account-key-file", &token_public_key),
        file("service-account-signing-key-file", &token_key),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--etcd-servers={etcd}"),
        format!("--service-cluster-ip-range={}", service_cidrs.join(",")),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--allow-privileged=true".to_owned(),
    ]
}

/// Further flags of an API server without controllers.
pub(super) fn standalone(address: &str, port: u16) -> [String; 5] {
    [
        format!("--bind-address={address}"),
        format!("--secure-port={port}"),
        // Nobody reconciles the endpoints of the Service `kubernetes`, and a loopback address may not be advertised.
        "--endpoint-reconciler-type=none".to_owned(),
        "--advertise-address=192.0.2.1".to_owned(),
        // No controller makes service accounts here, and pods would wait for them.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}
