//! A real cluster on one machine: kubelet, containerd, kube-proxy, and a control plane.
//!
//! Each machine is a process tree in namespaces and cgroups of its own, under a process 1 (`testbox`) that keeps its
//! services running. So a cluster outlives the program that made it, and killing one process per machine ends it all.
//! Nothing is written outside its folder, `target/clusters/NAME`, which [`Cluster::down`] removes.

mod access;
mod api;
mod cni_manifests;
mod default_network;
mod fixture;
mod folder;
mod hosts;
mod images;
mod machine;
mod manifests;
mod network;
mod node;
mod options;
mod parallel;
mod plane;
mod pods;
mod programs;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use spiderpool_testbox::{cgroup, cleanup};

use crate::control_plane::Authority;
use crate::fixture::Gateway;
pub use crate::matrix::ProxyMode;
use crate::namespaces::Namespaces;
use crate::poll;
use api::ApiAccess;
pub use fixture::ClusterFixture;
use folder::{Folder, Janitor};
pub use machine::Machine;
use network::Network;
pub use node::Node;
pub use options::{DefaultCni, Lifetime, Options};
use parallel::in_parallel;

/// How long nodes may take to become ready.
const READY_LIMIT: Duration = Duration::from_mins(1);

/// A running cluster. Dropping it leaves it running unless its lifetime is this process's.
#[derive(Debug)]
pub struct Cluster {
    options: Options,
    nodes: Vec<Node>,
    network: Network,
    authority: Authority,
    folder: Folder,
    janitor: Option<Janitor>,
}

impl Cluster {
    /// Starts a cluster and waits until its nodes are ready.
    pub fn up(options: &Options) -> Result<Self> {
        Self::up_with_progress(options, |_| ())
    }

    /// As [`Self::up`]; `progress` is called with each step.
    pub fn up_with_progress(options: &Options, progress: impl Fn(&str)) -> Result<Self> {
        options.check()?;
        let folder = Folder::of(&options.name)?;
        ensure!(
            !folder.path().exists() && !cgroup::exists(folder.group())?,
            "cluster {} is up already, or was not taken down: `cargo xtask cluster down --name {}`",
            options.name,
            options.name
        );
        folder.create(options)?;
        let janitor = match options.lifetime {
            Lifetime::Process => Some(Janitor::start(&folder)?),
            Lifetime::UntilDown => None,
        };
        let built = Self::build(options, folder.clone(), janitor, &progress);
        if built.is_err() && options.lifetime == Lifetime::UntilDown {
            eprintln!("what is left of it: {}", folder.path().display());
        }
        built
    }

    fn build(
        options: &Options,
        folder: Folder,
        janitor: Option<Janitor>,
        progress: &impl Fn(&str),
    ) -> Result<Self> {
        let authority = Authority::create(&folder.pki())?;
        let store = images::store()?;
        progress("certificates, images");
        let network = Network::start(&folder, options)?;
        plane::start(&network.fabric, &folder, &authority)?;
        progress("gateway, clients, networks; etcd and kube-apiserver started");
        let indexes: Vec<u8> = (1..=options.nodes).collect();
        let nodes = in_parallel(&indexes, |index| {
            let node = Node::create(*index, &folder, &network.fabric, &authority, &store)?;
            node.boot()?;
            Ok(node)
        })?;
        let cluster = Self { options: options.clone(), nodes, network, authority, folder, janitor };
        cluster.route_pods()?;
        progress("nodes with containerd");
        plane::wait_ready(&cluster.api(), &cluster.network.fabric)?;
        progress("kube-apiserver ready");
        in_parallel(&cluster.nodes, Node::start_kubernetes)?;
        plane::start_controllers(&cluster.network.fabric, &cluster.folder.pki(), &cluster.authority)?;
        manifests::apply(&cluster.api())?;
        cluster.nodes.iter().try_for_each(|node| cluster.wait_for(node))?;
        progress("nodes ready");
        manifests::wait_for_service_account(&cluster.api())?;
        progress("default service account");
        Ok(cluster)
    }

    /// A cluster that is up already.
    pub fn find(name: &str) -> Result<Self> {
        let folder = Folder::of(name)?;
        let options = folder.options()?;
        let authority = Authority::load(&folder.pki())?;
        let network = Network::find(&folder)?;
        let nodes = folder
            .nodes()?
            .into_iter()
            .map(|index| Node::find(index, &folder, &network.fabric))
            .collect::<Result<_>>()?;
        Ok(Self { options, nodes, network, authority, folder, janitor: None })
    }

    /// The names of all clusters of this workspace, whole or not.
    pub fn names() -> Result<Vec<String>> {
        Folder::all()
    }

    /// Ends the cluster and removes what there is of it.
    pub fn down(mut self) -> Result<()> {
        match self.janitor.take() {
            Some(janitor) => janitor.finish(),
            None => Self::remove(&self.options.name),
        }
    }

    /// Removes a cluster by its name, also one that did not come up or whose tool was killed.
    pub fn remove(name: &str) -> Result<()> {
        let folder = Folder::of(name)?;
        ensure!(folder.path().exists() || cgroup::exists(folder.group())?, "there is no cluster {name} here");
        cleanup::remove(folder.group(), folder.path())
    }

    /// The options that it was started or found with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The nodes, in the order of their numbers.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A node by its name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let names = || self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("cluster {} has no node {name}, but {}", self.options.name, names()))
    }

    /// Every machine: the nodes and those around them.
    pub fn machines(&self) -> Vec<&Machine> {
        self.nodes.iter().map(Node::machine).chain(self.network.machines()).collect()
    }

    /// How its API server is reached.
    fn api(&self) -> ApiAccess {
        ApiAccess::new(&self.folder, self.network.fabric.network())
    }

    /// Where the control plane runs and the switches are.
    pub fn fabric(&self) -> Namespaces {
        self.network.fabric.namespaces()
    }

    /// The router of the underlays and the management network.
    pub fn gateway(&self) -> Namespaces {
        self.network.gateway.namespaces()
    }

    /// A host behind the gateway.
    pub fn outside(&self) -> Namespaces {
        self.network.outside.namespaces()
    }

    /// A host in the (first) underlay.
    pub fn client_machine(&self) -> Namespaces {
        self.network.client.namespaces()
    }

    /// Cuts the gateway off from the first underlay, or connects it again.
    pub fn set_underlay_gateway(&self, state: Gateway) -> Result<()> {
        self.network.set_underlay_gateway(state)
    }

    /// Takes kube-apiserver away at once: when asked, it waits for its clients' watches for up to a minute.
    pub fn stop_api_server(&self) -> Result<()> {
        self.network.fabric.remove(plane::API_SERVER)
    }

    /// Starts kube-apiserver again and waits until it is ready.
    pub fn start_api_server(&self) -> Result<()> {
        plane::start_api_server(&self.network.fabric, &self.authority)?;
        plane::wait_ready(&self.api(), &self.network.fabric)
    }

    /// Runs kube-proxy in another mode on all nodes, and waits until its rules are there and the old ones are gone.
    pub fn set_proxy_mode(&self, mode: ProxyMode) -> Result<()> {
        in_parallel(&self.nodes, |node| node.set_proxy_mode(mode))?;
        self.folder.write_options(&Options { proxy: mode, ..self.folder.options()? })
    }

    /// Starts one more node and waits until it is ready.
    pub fn add_node(&mut self) -> Result<Node> {
        let index = self.nodes.last().map_or(0, |node| node.index) + 1;
        ensure!(index <= options::MAX_NODES, "a cluster has at most {} nodes", options::MAX_NODES);
        let store = images::store()?;
        let node = Node::create(index, &self.folder, &self.network.fabric, &self.authority, &store)?;
        self.nodes.push(node.clone());
        node.boot()?;
        self.route_pods()?;
        node.start_kubernetes()?;
        self.wait_for(&node)?;
        Ok(node)
    }

    /// Switches a node on again and waits until it is ready.
    pub fn power_on(&self, node: &Node) -> Result<()> {
        let before = node.last_sign(&self.api())?;
        node.power_on()?;
        // The API server takes some time to notice that a node is off, and calls it ready until then.
        poll::until(&format!("a sign of life of {}", node.name), READY_LIMIT, || {
            ensure!(node.last_sign(&self.api())? != before, "the last one is of the time before");
            Ok(())
        })
        .with_context(|| node.machine().diagnosis())?;
        self.wait_for(node)
    }

    /// Waits until a node's kubelet has reported to the API server that it is ready, and containerd runs.
    pub fn wait_for(&self, node: &Node) -> Result<()> {
        let what = format!("{} ready", node.name);
        poll::until(&what, READY_LIMIT, || node.check_ready(&self.api()))
            .with_context(|| node.machine().diagnosis())?;
        manifests::assign_pod_cidrs(&self.api(), node)
    }

    /// The overlay: static routes to every node's pods, on the nodes and on the API server's machine.
    fn route_pods(&self) -> Result<()> {
        // A node that is off gets them when it is switched on.
        for node in self.nodes.iter().filter(|node| node.machine().is_on()) {
            node.route_pods()?;
        }
        self.network.fabric.namespaces().ip(&network::pod_routes(self.nodes.iter().map(|node| node.index)))
    }
}
