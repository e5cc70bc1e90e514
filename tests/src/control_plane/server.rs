//! kube-apiserver's command line.

use std::path::Path;

use anyhow::Result;

use super::ControlPlane;
use crate::process::Process;
use crate::tools;

pub(super) fn start(plane: &ControlPlane) -> Result<Process> {
    let addresses = [plane.address.clone(), "localhost".into(), "kubernetes.default.svc".into()];
    let serving = plane.authority.sign("kube-apiserver", None, &addresses)?;
    let (token_key, token_public_key) = plane.authority.token_keys();
    let mut command = plane.command(&tools::kubernetes("kube-apiserver")?);
    let mut file = |flag: &str, path: &Path| {
        command.arg(format!("--{flag}={}", path.display()));
    };
    file("tls-cert-file", &serving.certificate);
    file("tls-private-key-file", &serving.key);
    file("client-ca-file", &plane.authority.certificate());
    file("service-account-key-file", &token_public_key);
    file("service-account-signing-key-file", &token_key);
    command
        .arg(format!("--etcd-servers=http://{}:{}", plane.address, plane.ports.etcd_client))
        .arg(format!("--bind-address={}", plane.address))
        .arg(format!("--secure-port={}", plane.ports.api))
        .arg(format!("--service-cluster-ip-range={}", plane.options.service_cidrs.join(",")))
        .args([
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            // Nobody reconciles the endpoints of the Service `kubernetes`, and a loopback address may not be advertised.
            "--endpoint-reconciler-type=none",
            "--advertise-address=192.0.2.1",
            "--authorization-mode=Node,RBAC",
            // No controller makes service accounts here, and pods would wait for them.
            "--disable-admission-plugins=ServiceAccount",
            "--allow-privileged=true",
            "--profiling=false",
        ]);
    Process::start("kube-apiserver", &command, &plane.state.log("kube-apiserver"))
}
