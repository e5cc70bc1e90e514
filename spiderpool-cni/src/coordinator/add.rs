//! ADD: plans, does, and leaves nothing behind if a step fails.

use serde_json::Value;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{
    Config, Dataplane, Inputs, Mode, Namespace, Plan, Setup, decide_setup, host_end_name, plan_overlay,
};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use spiderpool_net::tc::Direction;
use tracing::{debug, info, warn};

use super::NetConf;
use super::apply::Applier;
use super::attach::{Attached, other_underlay_nics};
use super::register::{Registration, attachment, node_addresses};
use super::state::{cluster_peer, read_host_end, read_pod_of, sources};
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::{Version, convert_result};

pub(super) fn add(request: &Request, conf: NetConf, version: Version) -> Result<Value, PluginError> {
    let netns = NetNs::open(&request.netns)?;
    let (config, answer) = conf.merge(request)?;
    debug!(?config, nodes = ?answer.node_addresses, "configuration");
    if config.mode == Mode::Underlay {
        return Err(Unsupported::UnderlayMode.into());
    }
    let mut applier = Applier::new(&netns)?;
    let pod = read_pod_of(&mut applier.pod_netlink, request, &conf)?;
    match decide_setup(config.mode, &request.nic, &config.first_nic, pod.has_link("veth0"))? {
        Setup::Nothing => return Ok(convert_result(conf.base.prev_result, version)),
        Setup::Underlay => return Err(Unsupported::UnderlayMode.into()),
        Setup::Overlay => {}
    }
    if config.dataplane == Dataplane::Policy {
        return Err(Unsupported::PolicyDataplane.into());
    }
    let peer = cluster_peer(&mut applier.node_netlink, &pod, &config.first_nic)?;
    let host_end =
        host_end_name(request.container_id.as_str()).map_err(|e| PluginError::Config(e.to_string()))?;
    let host_end = read_host_end(&mut applier.node_netlink, &host_end)?;
    let nodes = node_addresses(&answer);
    if nodes.is_empty() {
        warn!("the agent names no node addresses: the node link's routes have no source");
    }
    let plan = plan_overlay(&Inputs {
        container_id: request.container_id.as_str(),
        nic: &request.nic,
        config: &config,
        pod: &pod,
        host_end: &host_end,
        cluster_peer: peer,
        nodes: &nodes,
        sources: &sources(&mut applier.node_netlink, &pod, &request.nic),
        expected: answer.expected_nics.as_deref(),
    })?;
    let is_registered = is_registered(&mut applier.pod_netlink, &pod, &request.nic)?;
    let attached = Attached::default();
    let mut transaction =
        Transaction { request, conf: &conf, config: &config, peer, applier, attached, is_registered };
    if let Err(error) = transaction.run(&plan) {
        warn!(%error, "undo");
        transaction.undo();
        return Err(error);
    }
    info!(steps = plan.links.len() + plan.routes.len(), "NIC is set up");
    Ok(convert_result(conf.base.prev_result, version))
}

/// Whether an earlier ADD was here: its registration is not ours to undo, its filters need it.
fn is_registered(netlink: &mut Netlink, pod: &Namespace, nic: &IfName) -> Result<bool, PluginError> {
    let Some(link) = pod.link(nic) else { return Ok(false) };
    Ok(netlink.own_filter(link.index, Direction::Egress)?.is_some())
}

struct Transaction<'a> {
    request: &'a Request,
    conf: &'a NetConf,
    config: &'a Config,
    peer: MacAddr,
    applier: Applier<'a>,
    attached: Attached,
    is_registered: bool,
}

impl Transaction<'_> {
    fn run(&mut self, plan: &Plan) -> Result<(), PluginError> {
        self.applier.apply(&plan.links)?;
        // With the node link, and with the MACs as they are now.
        let pod = read_pod_of(&mut self.applier.pod_netlink, self.request, self.conf)?;
        let first = &self.config.first_nic;
        let others = other_underlay_nics(&mut self.applier.pod_netlink, &pod, &self.request.nic, first)?;
        let body = Registration {
            request: self.request,
            network: &self.conf.base.name,
            config: self.config,
            pod: &pod,
            cluster_peer: self.peer,
            others: &others,
        }
        .body()?;
        let answer = self
            .conf
            .client()
            .register_nics(&body)
            .map_err(|e| PluginError::of_client(e, PluginError::Register))?;
        self.attached.attach(&mut self.applier.pod_netlink, &body.nics, &answer)?;
        // Routes bring the traffic: they come last.
        self.applier.apply(&plan.routes)
    }

    fn undo(&mut self) {
        self.attached.undo(&mut self.applier.pod_netlink);
        if !self.is_registered {
            let attachment = attachment(self.request, &self.conf.base.name);
            if let Err(error) = self.conf.client().unregister_nics(&attachment) {
                warn!(%error, "registration is left to the agent's comparison");
            }
        }
        self.applier.undo();
    }
}
