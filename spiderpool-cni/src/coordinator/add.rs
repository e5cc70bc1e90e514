//! ADD: plans, applies, and rolls back if a step fails. This is what the eBPF dataplane does.

use std::path::Path;

use serde_json::Value;
use spiderpool_core::coordinator::{Config, Dataplane, Namespace, NamespaceState, check_rp_filter};
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
use super::ebpf::{self, Planned};
use super::next_hops::NextHops;
use super::policy;
use super::register::{Registration, attachment};
use super::setup::{Task, task};
use super::state::read_pod;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::{Version, convert_result};

pub(super) async fn add(request: &Request, conf: NetConf, version: Version) -> Result<Value, PluginError> {
    let netns = NetNs::open(&request.netns)?;
    let (config, answer) = conf.resolve(request)?;
    debug!(?config, nodes = ?answer.node_addresses, "configuration");
    let mut executor = Executor::new(&netns, MissingDevice::Fail)?;
    let pod = read_pod(executor.netlink(Namespace::Pod), request, &conf, Contents::PLAIN).await?;
    let mode = match task(&mut executor, request, &config, &pod).await? {
        None => return Ok(convert_result(conf.base.prev_result, version)),
        Some(Task::Ebpf(mode)) => mode,
        Some(Task::Policy(mode)) => {
            policy::add(mode, request, &conf, &config, &answer, &mut executor).await?;
            return Ok(convert_result(conf.base.prev_result, version));
        }
    };
    // Not of the plan, by which CHECK looks at pods that run with it.
    check_rp_filter(Dataplane::Ebpf, config.rp_filter)?;
    let planned = ebpf::plan(mode, request, &config, &answer, &pod, NextHops::Any, &mut executor).await?;
    let is_registered = is_registered(executor.netlink(Namespace::Pod), &pod, &request.nic).await?;
    let attached = AttachedFilters::default();
    let mut transaction = Transaction {
        request,
        netns: &netns,
        conf: &conf,
        config: &config,
        planned: &planned,
        executor,
        attached,
        is_registered,
    };
    if let Err(error) = transaction.run().await {
        warn!(%error, "ADD failed, rolling back");
        transaction.roll_back().await;
        return Err(error);
    }
    info!(steps = planned.plan.links.len() + planned.plan.routes.len(), "NIC is set up");
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
    planned: &'a Planned,
    executor: Executor<'a>,
    attached: AttachedFilters,
    is_registered: bool,
}

impl Transaction<'_> {
    async fn run(&mut self) -> Result<(), PluginError> {
        let planned = self.planned;
        self.executor.apply(&planned.plan.links).await?;
        // With the node link, and with the MACs as they are now.
        let netlink = self.executor.netlink(Namespace::Pod);
        let pod = read_pod(netlink, self.request, self.conf, Contents::PLAIN).await?;
        let others = other_underlay_nics(netlink, &pod, &self.request.nic, &planned.cluster_nic).await?;
        let body = Registration {
            request: self.request,
            netns: self.netns,
            network: &self.conf.base.name,
            config: self.config,
            pod: &pod,
            planned,
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
        let node = self.executor.netlink(Namespace::Node);
        attach_host_end(node, &planned.link, &answer, &programs).await?;
        // Routes bring the traffic: they come last.
        Ok(self.executor.apply(&planned.plan.routes).await?)
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
