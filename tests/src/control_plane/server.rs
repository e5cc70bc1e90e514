//! kube-apiserver's command line.

use std::path::Path;

use anyhow::Result;

use super::ControlPlane;
use super::certificates::{Authority, Identity};
use crate::process::Process;
use crate::tools;

pub(super) fn start(plane: &ControlPlane) -> Result<Process> {
    let addresses = [plane.address.clone(), "localhost".into(), "kubernetes.default.svc".into()];
    let serving = plane.authority.sign("kube-apiserver", None, &addresses)?;
    let etcd = format!("http://{}:{}", plane.address, plane.ports.etcd_client);
    let mut command = plane.command(&tools::kubernetes("kube-apiserver")?);
    command.args(arguments(&plane.authority, &serving, &etcd, &plane.options.service_cidrs));
    command
        .arg(format!("--bind-address={}", plane.address))
        .arg(format!("--secure-port={}", plane.ports.api))
        .args([
            // Nobody reconciles the endpoints of the Service `kubernetes`, and a loopback address may not be advertised.
            "--endpoint-reconciler-type=none",
            "--advertise-address=192.0.2.1",
            // No controller makes service accounts here, and pods would wait for them.
            "--disable-admission-plugins=ServiceAccount",
        ]);
    Process::start("kube-apiserver", &command, &plane.state.log("kube-apiserver"))
}

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
        "--profiling=false".to_owned(),
    ]
}
