//! The control plane of a cluster, as services of the fabric: etcd, kube-apiserver, then the controllers.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Machine;
use super::api::{ADMIN, ApiAccess};
use super::folder::Folder;
use crate::control_plane::{Authority, Durability, Identity, etcd, server};
use crate::topology::addresses;
use crate::{poll, tools};

pub(super) const API_SERVER: &str = "kube-apiserver";
/// Who kube-proxy is for the API server.
pub(super) const KUBE_PROXY: &str = "system:kube-proxy";
const CONTROLLER_MANAGER: &str = "system:kube-controller-manager";
const SCHEDULER: &str = "system:kube-scheduler";
const ADMINISTRATORS: &str = "system:masters";

const START_LIMIT: Duration = Duration::from_mins(1);
const ETCD_PORTS: [u16; 2] = [2379, 2380];
const API_PORT: u16 = 6443;

/// Where the API server is reached.
pub(super) fn url() -> String {
    format!("https://{}:{API_PORT}", addresses::API_SERVER.v4)
}

/// Signs all identities and starts etcd and the API server.
pub(super) fn start(fabric: &Machine, folder: &Folder, authority: &Authority) -> Result<()> {
    let server = url();
    authority.kubeconfig(&server, ADMIN, Some(ADMINISTRATORS))?;
    for user in [CONTROLLER_MANAGER, SCHEDULER, KUBE_PROXY] {
        authority.kubeconfig(&server, user, None)?;
    }
    let program = tools::kubernetes("etcd")?.display().to_string();
    let data = folder.machine(fabric.name()).join("etcd");
    let arguments = etcd::arguments("127.0.0.1", ETCD_PORTS, &data, Durability::NoFsync);
    fabric.start("etcd", [vec![program], arguments].concat())?;
    start_api_server(fabric, authority)
}

/// Starts the API server on what etcd has.
pub(super) fn start_api_server(fabric: &Machine, authority: &Authority) -> Result<()> {
    let own = addresses::API_SERVER;
    let names = [
        &own.v4.to_string(),
        &own.v6.to_string(),
        "127.0.0.1",
        "10.96.0.1",
        "fd96::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ]
    .map(str::to_owned);
    let serving = authority.sign("kube-apiserver", None, &names)?;
    let kubelets = authority.sign("kube-apiserver-kubelet-client", Some(ADMINISTRATORS), &[])?;
    let front = authority.sign("front-proxy-client", None, &[])?;
    let services = addresses::SERVICES.map(str::to_owned);
    let etcd = format!("http://127.0.0.1:{}", ETCD_PORTS[0]);
    let mut command = vec![tools::kubernetes(API_SERVER)?.display().to_string()];
    command.extend(server::arguments(authority, &serving, &etcd, &services));
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    command.extend([
        "--bind-address=::".to_owned(),
        format!("--secure-port={API_PORT}"),
        format!("--advertise-address={}", own.v4),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        file("kubelet-client-certificate", &kubelets.certificate),
        file("kubelet-client-key", &kubelets.key),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        file("requestheader-client-ca-file", &authority.certificate()),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        file("proxy-client-cert-file", &front.certificate),
        file("proxy-client-key-file", &front.key),
        // Webhooks are called at their endpoints: the fabric has no kube-proxy.
        "--enable-aggregator-routing=true".to_owned(),
    ]);
    fabric.start(API_SERVER, command)
}

/// Waits until the API server answers that it is ready.
pub(super) fn wait_ready(api: &ApiAccess, fabric: &Machine) -> Result<()> {
    poll::until("kube-apiserver's /readyz", START_LIMIT, || {
        api.with_client(async |client| {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok(client.request_text(request).await?)
        })
    })
    .with_context(|| fabric.diagnosis())?;
    Ok(())
}

/// Starts the controllers and the scheduler, which give up if they start before the API server has its roles.
pub(super) fn start_controllers(fabric: &Machine, pki: &Path, authority: &Authority) -> Result<()> {
    let identified = |user: &str| {
        let kubeconfig = Identity::of(pki, user).kubeconfig();
        ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
            .map(|flag| format!("--{flag}={}", kubeconfig.display()))
    };
    let (token_key, _) = authority.token_keys();
    let mut manager = vec![tools::kubernetes("kube-controller-manager")?.display().to_string()];
    manager.extend(identified(CONTROLLER_MANAGER));
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    manager.extend([
        file("service-account-private-key-file", &token_key),
        file("root-ca-file", &authority.certificate()),
        file("cluster-signing-cert-file", &authority.certificate()),
        file("cluster-signing-key-file", &authority.key()),
        "--use-service-account-credentials=true".to_owned(),
        "--leader-elect=false".to_owned(),
        // With the defaults it spends its first seconds waiting for its own rate limit.
        "--kube-api-qps=300".to_owned(),
        "--kube-api-burst=600".to_owned(),
        "--controllers=*,-resourcequota-controller,-node-ipam-controller,-cloud-node-lifecycle-controller,\
         -service-lb-controller,-node-route-controller"
            .to_owned(),
        format!("--cluster-cidr={}", addresses::OVERLAY.join(",")),
        format!("--service-cluster-ip-range={}", addresses::SERVICES.join(",")),
    ]);
    fabric.start("kube-controller-manager", manager)?;
    let mut scheduler = vec![tools::kubernetes("kube-scheduler")?.display().to_string()];
    scheduler.extend(identified(SCHEDULER));
    scheduler.push("--leader-elect=false".to_owned());
    fabric.start("kube-scheduler", scheduler)
}
