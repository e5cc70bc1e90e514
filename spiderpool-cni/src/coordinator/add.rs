//! ADD: plans, applies, and rolls back if a step fails. This is what the eBPF dataplane does.

use std::path::Path;

use serde_json::Value;
use spiderpool_core::coordinator::{
    Config, Inputs, Namespace, NamespaceState, OverlayPlan, check_pod_cidrs, host_end_name, plan_overlay,
};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_dataplane::{AttachedFilters, Programs};
use spiderpool_net::executor::{Executor, MissingDevice};
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::tc::Direction;
use tracing::{debug, info, warn};

use super::NetConf;
use super::attach::{attach, attach_host_end, other_underlay_nics};
use super::policy;
use super::register::{Registration, attachment, node_addresses};
use super::setup::{Task, task};
use super::state::{host_veth, next_hop_mac, read_host_end, read_pod, sources};
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::{Version, convert_result};

pub(super) async fn add(request: &Request, conf: NetConf, version: Version) -> Result<Value, PluginError> {
    let netns = NetNs::open(&request.netns)?;
    let (config, answer) = conf.resolve(request)?;
    debug!(?config, nodes = ?answer.node_addresses, "configuration");
    let mut executor = Executor::new(&netns, MissingDevice::Fail)?;
    let pod = read_pod(executor.netlink(Namespace::Pod), request, &conf, Contents::PLAIN).await?;
    match task(executor.netlink(Namespace::Pod), &config, &request.nic, &pod).await? {
        None => return Ok(convert_result(conf.base.prev_result, version)),
        Some(Task::Ebpf) => {}
        Some(Task::Policy(mode)) => {
            policy::add(mode, request, &conf, &config, &answer, &mut executor).await?;
            return Ok(convert_result(conf.base.prev_result, version));
        }
    }
    let host_veth = host_veth(executor.netlink(Namespace::Node), &pod, &config.first_nic).await?;
    let pod_netlink = executor.netlink(Namespace::Pod);
    let peer = next_hop_mac(pod_netlink, &pod, &config.first_nic, &host_veth).await?;
    let node = executor.netlink(Namespace::Node);
    let host_end = host_end_name(request.container_id.as_str())?;
    let host_end = read_host_end(node, &host_end).await?;
    let nodes = node_addresses(&answer);
    if nodes.is_empty() {
        warn!("the agent names no node addresses: the node link's routes have no source");
    }
    let addresses = pod.usable_addresses(&request.nic);
    check_pod_cidrs(&request.nic, &addresses, &config.pod_cidrs, &answer.address_pools)?;
    let plan = plan_overlay(&Inputs {
        container_id: request.container_id.as_str(),
        nic: &request.nic,
        config: &config,
        pod: &pod,
        host_end: &host_end,
        host_veth_mac: peer,
        nodes: &nodes,
        sources: &sources(node, &pod, &request.nic).await,
        expected: answer.expected_nics.as_deref(),
    })?;
    let is_registered = is_registered(executor.netlink(Namespace::Pod), &pod, &request.nic).await?;
    let attached = AttachedFilters::default();
    let mut transaction = Transaction {
        request,
        netns: &netns,
        conf: &conf,
        config: &config,
        peer,
        executor,
        attached,
        is_registered,
    };
    if let Err(error) = transaction.run(&plan).await {
        warn!(%error, "ADD failed, rolling back");
        transaction.roll_back().await;
        return Err(error);
    }
    info!(steps = plan.links.len() + plan.routes.len(), "NIC is set up");
    Ok(convert_result(conf.base.prev_result, version))
}

/// Whether an earlier ADD has registered the NIC: its filters need the registration, so it is not rolled back.
async fn is_registered(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nic: &IfName,
) -> Result<bool, PluginError> {
    let Some(link) = pod.link(nic) else { return Ok(false) };
    Ok(netlink.own_filter(link.index, Direction::Egress).await?.is_some())
}

struct Transaction<'a> {
    request: &'a Request,
    netns: &'a NetNs,
    conf: &'a NetConf,
    config: &'a Config,
    peer: MacAddr,
    executor: Executor<'a>,
    attached: AttachedFilters,
    is_registered: bool,
}

impl Transaction<'_> {
    async fn run(&mut self, plan: &OverlayPlan) -> Result<(), PluginError> {
        self.executor.apply(&plan.links).await?;
        // With the node link, and with the MACs as they are now.
        let netlink = self.executor.netlink(Namespace::Pod);
        let pod = read_pod(netlink, self.request, self.conf, Contents::PLAIN).await?;
        let first = &self.config.first_nic;
        let others = other_underlay_nics(netlink, &pod, &self.request.nic, first).await?;
        let body = Registration {
            request: self.request,
            netns: self.netns,
            network: &self.conf.base.name,
            config: self.config,
            pod: &pod,
            host_veth_mac: self.peer,
            others: &others,
        }
        .body()?;
        let answer = self
            .conf
            .client()
            .register_nics(&body)
            .map_err(|e| PluginError::of_client(e, PluginError::Register))?;
        let programs = Programs::open(Path::new(&answer.programs)).map_err(PluginError::Programs)?;
        attach(&mut self.attached, netlink, &body.nics, &answer, &programs).await?;
        let host_end = host_end_name(self.request.container_id.as_str())?;
        attach_host_end(self.executor.netlink(Namespace::Node), &host_end, &answer, &programs).await?;
        // Routes bring the traffic: they come last.
        Ok(self.executor.apply(&plan.routes).await?)
    }

    /// What cannot be rolled back is logged: the runtime's DEL comes after.
    async fn roll_back(&mut self) {
        for error in self.attached.roll_back(self.executor.netlink(Namespace::Pod)).await {
            warn!(%error, "filter cannot be detached");
        }
        if !self.is_registered {
            let attachment = attachment(self.request, &self.conf.base.name);
            if let Err(error) = self.conf.client().unregister_nics(&attachment) {
                warn!(%error, "unregistering failed, the agent removes the registration later");
            }
        }
        for error in self.executor.roll_back().await {
            warn!(step = %error.step, error = %error.source, "step cannot be rolled back");
        }
    }
}
