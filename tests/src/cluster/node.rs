//! A node: machine, containerd, kubelet, kube-proxy and default network.

mod config;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::Api;

use super::api::ApiAccess;
use super::folder::Folder;
use super::programs::{program, testbox};
use super::{Machine, ProxyMode, default_network, images, network, plane};
use crate::control_plane::{Authority, Identity};
use crate::dual::Dual;
use crate::namespaces::Namespaces;
use crate::topology::addresses;
use crate::{poll, process, tools};

const CONTAINERD_LIMIT: Duration = Duration::from_secs(20);
const PROXY_LIMIT: Duration = Duration::from_secs(30);
/// The ClusterIP of the Service `kubernetes`, which is always there.
const KUBERNETES: &str = "10.96.0.1";
const KUBELET: &str = "kubelet";
const KUBE_PROXY: &str = "kube-proxy";
const CONTAINERD: &str = "containerd";
/// Where kubelets show that they live.
const LEASES: &str = "kube-node-lease";
/// Neither may lie on an overlay file system.
const VOLUMES: &[&str] = &["/var/lib/kubelet", images::ROOT];

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    /// 1 for `node1`.
    pub index: u8,
    /// Its name in Kubernetes.
    pub name: String,
    machine: Machine,
    fabric: Machine,
    folder: Folder,
}

/// Of its machine, and of the node too where there is no domain.
fn machine_name(index: u8) -> String {
    format!("node{index}")
}

impl Node {
    /// Makes a node: its disk with images, and its identities. It is off.
    pub(super) fn create(
        index: u8,
        folder: &Folder,
        fabric: &Machine,
        authority: &Authority,
        store: &Path,
    ) -> Result<Self> {
        let machine = Machine::create(folder.spec(&machine_name(index), VOLUMES)?)?;
        images::copy(store, machine.folder())?;
        let name = folder.options()?.node_name(index);
        let Dual { v4, v6 } = addresses::node(index);
        let user = format!("system:node:{name}");
        let served = [name.clone(), v4.to_string(), v6.to_string()];
        let identity = authority.sign(&user, Some("system:nodes"), &served)?;
        authority.kubeconfig_of(&plane::url(), &user, &identity)?;
        Ok(Self { index, name, machine, fabric: fabric.clone(), folder: folder.clone() })
    }

    /// A node that was made before.
    pub(super) fn find(index: u8, folder: &Folder, fabric: &Machine) -> Result<Self> {
        let name = folder.options()?.node_name(index);
        let machine = Machine::find(&folder.machine(&machine_name(index)))?;
        Ok(Self { index, name, machine, fabric: fabric.clone(), folder: folder.clone() })
    }

    /// The machine that it runs on.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// All its namespaces.
    pub fn namespaces(&self) -> Namespaces {
        self.machine.namespaces()
    }

    /// The node IP, on eth0.
    pub fn address(&self) -> Dual {
        addresses::node(self.index)
    }

    /// The address on eth1, the parent NIC of the first underlay.
    pub fn underlay(&self) -> Dual {
        addresses::node_underlay(self.index)
    }

    /// Cuts its power.
    pub fn power_off(&self) -> Result<()> {
        self.machine.power_off()
    }

    /// Switches it on again, with the disk that it had. Does not wait until the API server calls it ready.
    pub fn power_on(&self) -> Result<()> {
        ensure!(!self.machine.is_on(), "{} is on already", self.name);
        self.boot()?;
        self.start_kubernetes()
    }

    /// SIGKILL to the kubelet; it is restarted a moment later, as systemd does.
    pub fn kill_kubelet(&self) -> Result<()> {
        self.machine.kill(KUBELET)
    }

    /// Machine, networks, containerd: all that needs no API server.
    pub(super) fn boot(&self) -> Result<()> {
        let options = self.folder.options()?;
        self.machine.boot()?;
        network::connect_node(&self.fabric, &self.machine, self.index, options.underlays)?;
        self.install(&options)?;
        default_network::start(&self.machine, options.cni, self.index)?;
        self.route_pods()?;
        self.start_containerd()
    }

    /// Static routes to the other nodes' pods.
    pub(super) fn route_pods(&self) -> Result<()> {
        let others = self.folder.nodes()?.into_iter().filter(|index| *index != self.index);
        self.namespaces().ip(&network::pod_routes(others))
    }

    fn install(&self, options: &super::Options) -> Result<()> {
        let network = default_network::configuration(options.cni, self.index);
        let (plugins, testbox) = (tools::cni_plugins()?, testbox()?);
        let index = self.index;
        self.namespaces().run(|| default_network::install(&network, index, &plugins, &testbox))
    }

    fn kubeconfig(&self, user: &str) -> PathBuf {
        Identity::of(&self.folder.pki(), user).kubeconfig()
    }

    /// Writes a configuration file into the node's folder, where it is seen inside and outside.
    fn write_config(&self, name: &str, config: &str) -> Result<String> {
        let path = self.machine.folder().join(name);
        std::fs::write(&path, config)?;
        Ok(path.display().to_string())
    }

    fn start_containerd(&self) -> Result<()> {
        let config = self.write_config("containerd.toml", &config::containerd())?;
        self.machine.start(CONTAINERD, vec![program("containerd")?, "--config".to_owned(), config])?;
        // A kubelet that finds containerd without its CRI plugin gives up.
        poll::until(&format!("containerd of {}", self.name), CONTAINERD_LIMIT, || {
            let plugins = self.ctr(&["plugins", "ls"])?;
            let is_cri = |line: &str| line.split_whitespace().nth(1) == Some("cri") && line.ends_with("ok");
            ensure!(plugins.lines().any(|line| is_cri(line.trim())), "no CRI plugin:\n{plugins}");
            Ok(())
        })
        .with_context(|| self.machine.diagnosis())
    }

    /// kubelet and kube-proxy.
    pub(super) fn start_kubernetes(&self) -> Result<()> {
        let user = format!("system:node:{}", self.name);
        let kubelet = config::kubelet(&self.folder.pki(), &user);
        let config = self.write_config("kubelet.json", &kubelet.to_string())?;
        let Dual { v4, v6 } = self.address();
        self.machine.start(
            KUBELET,
            vec![
                tools::kubernetes("kubelet")?.display().to_string(),
                format!("--config={config}"),
                format!("--kubeconfig={}", self.kubeconfig(&user).display()),
                format!("--hostname-override={}", self.name),
                format!("--node-ip={v4},{v6}"),
                "--root-dir=/var/lib/kubelet".to_owned(),
            ],
        )?;
        self.start_kube_proxy(self.folder.options()?.proxy)
    }

    fn start_kube_proxy(&self, mode: ProxyMode) -> Result<()> {
        let kubeconfig = self.kubeconfig(plane::KUBE_PROXY);
        let proxy = config::kube_proxy(&kubeconfig, &self.name, mode);
        let config = self.write_config("kube-proxy.json", &proxy.to_string())?;
        let command = [tools::kubernetes(KUBE_PROXY)?.display().to_string(), format!("--config={config}")];
        self.machine.start(KUBE_PROXY, command.to_vec())
    }

    /// Restarts kube-proxy in another mode, after it has removed the rules of the old one.
    pub(super) fn set_proxy_mode(&self, mode: ProxyMode) -> Result<()> {
        self.machine.stop(KUBE_PROXY)?;
        let program = tools::kubernetes(KUBE_PROXY)?;
        let config = self.machine.folder().join("kube-proxy.json");
        self.namespaces().output(
            &program.display().to_string(),
            &["--cleanup", &format!("--config={}", config.display())],
        )?;
        self.start_kube_proxy(mode)?;
        poll::until(&format!("{mode} rules on {}", self.name), PROXY_LIMIT, || {
            let rules = |program, arguments: &[&str]| self.namespaces().output(program, arguments);
            let nftables = rules("nft", &["list", "ruleset"])?;
            let nftables = nftables.contains("table ip kube-proxy") && nftables.contains(KUBERNETES);
            let iptables = rules("iptables-save", &["-t", "nat"])?.contains(&format!("-d {KUBERNETES}/32"));
            let (new, old) = match mode {
                ProxyMode::Nftables => (nftables, iptables),
                ProxyMode::Iptables => (iptables, nftables),
            };
            ensure!(new, "they are not there yet");
            ensure!(!old, "those of the former mode are still there");
            Ok(())
        })
    }

    /// Runs ctr(8) in the namespace of Kubernetes.
    pub fn ctr(&self, arguments: &[&str]) -> Result<String> {
        self.namespaces().output(&program("ctr")?, &[&["--namespace", "k8s.io"], arguments].concat())
    }

    /// Imports an image archive.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        ensure!(self.machine.is_on(), "{} is switched off", self.name);
        let file = std::fs::File::open(archive).with_context(|| archive.display().to_string())?;
        let mut command = Command::new(program("ctr")?);
        command.args(["--namespace", "k8s.io", "images", "import", "-"]);
        self.namespaces()
            .run(|| process::output_from_file(&command, file))
            .with_context(|| format!("{}: image {}", self.name, archive.display()))?;
        Ok(())
    }

    /// When its kubelet last renewed its Lease.
    pub(super) fn last_sign(&self, api: &ApiAccess) -> Result<Option<MicroTime>> {
        let lease = api.with_client(async |client| {
            Ok(Api::<Lease>::namespaced(client, LEASES).get_opt(&self.name).await?)
        })?;
        Ok(lease.and_then(|lease| lease.spec?.renew_time))
    }

    /// Fails if the API server does not call it ready.
    pub(super) fn check_ready(&self, api: &ApiAccess) -> Result<()> {
        let node =
            api.with_client(async |client| Ok(Api::<core::Node>::all(client).get(&self.name).await?))?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        let ready =
            conditions.iter().find(|condition| condition.type_ == "Ready").context("no condition Ready")?;
        ensure!(ready.status == "True", "condition Ready is {}: {:?}", ready.status, ready.message);
        Ok(())
    }
}
