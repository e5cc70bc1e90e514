//! CHECK: plans again; what the plan would still do is missing.

use std::collections::BTreeSet;

use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::coordinator::{Config, Namespace, NamespaceState, Step};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Link, MAIN_TABLE, Rule};
use spiderpool_net::executor::{ApplyError, Executor, MissingDevice};
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use spiderpool_net::nft;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::sysctl;
use spiderpool_net::tc::Direction;

use super::NetConf;
use super::ebpf::{self, Planned};
use super::next_hops::NextHops;
use super::policy;
use super::setup::{PodMode, Task, task};
use super::state::read_pod;
use crate::env::Request;
use crate::error::{CheckError, PluginError};

pub(super) async fn check(request: &Request, conf: &NetConf) -> Result<(), PluginError> {
    let netns = NetNs::open(&request.netns)?;
    let (config, answer) = conf.resolve(request)?;
    let mut executor = Executor::new(&netns, MissingDevice::Fail)?;
    let pod = read_pod(executor.netlink(Namespace::Pod), request, conf, Contents::PLAIN).await?;
    let mode = match task(&mut executor, request, &config, &pod).await? {
        None => return Ok(()),
        Some(Task::Ebpf(mode)) => mode,
        Some(Task::Policy(mode)) => {
            let missing =
                missing_of_policy(mode, request, conf, &config, &answer, &netns, &mut executor).await?;
            return report(request, missing);
        }
    };
    let Planned { plan, cluster_nic, link, .. } =
        ebpf::plan(mode, request, &config, &answer, &pod, NextHops::AsFound, &mut executor).await?;
    // Hints and the default route in the pod follow the cluster and the application: the agent's business.
    let is_on_node = |step: &&Step| {
        let (Step::ReplaceRoute { namespace, .. } | Step::SetUp { namespace, .. }) = step else {
            return false;
        };
        *namespace == Namespace::Node
    };
    let mut missing = Vec::new();
    for step in plan.links.iter().chain(plan.routes.iter().filter(is_on_node)) {
        if !is_set(&netns, step)? {
            missing.push(step.to_string());
        }
    }
    // In underlay mode the node link is the cluster NIC.
    for nic in BTreeSet::from([&cluster_nic, &link.pod, &request.nic]) {
        missing.extend(missing_filters(executor.netlink(Namespace::Pod), &pod, nic).await?);
    }
    missing.extend(missing_filters_of_host_end(executor.netlink(Namespace::Node), &link.host).await?);
    report(request, missing)
}

fn report(request: &Request, missing: Vec<String>) -> Result<(), PluginError> {
    if missing.is_empty() {
        return Ok(());
    }
    Err(PluginError::Check(CheckError::Steps { nic: request.nic.clone(), missing }))
}

/// What of rules and tables is missing: all but the main table of the pod, which is also the application's.
async fn missing_of_policy(
    mode: PodMode,
    request: &Request,
    conf: &NetConf,
    config: &Config,
    answer: &CoordinatorConfig,
    netns: &NetNs,
    executor: &mut Executor<'_>,
) -> Result<Vec<String>, PluginError> {
    let steps = policy::plan(mode, request, conf, config, answer, NextHops::AsFound, executor).await?;
    let rules = executor.netlink(Namespace::Node).rules().await?;
    let is_there =
        |wanted: &Rule| rules.iter().any(|rule| Rule { protocol: wanted.protocol, ..*rule } == *wanted);
    let mut missing = Vec::new();
    for step in &steps {
        let is_set = match step {
            Step::AddRule { namespace: Namespace::Node, rule } => is_there(rule),
            Step::SetReturnMarks(marks) => {
                let found = netns.run(|| nft::has_return_marks(&marks.nic))?;
                found.map_err(|error| ApplyError { step: Box::new(step.clone()), source: error.into() })?
            }
            Step::AddRoute { namespace: Namespace::Pod, route }
            | Step::DeleteRoute { namespace: Namespace::Pod, route } => route.table == MAIN_TABLE,
            _ => is_set(netns, step)?,
        };
        if !is_set {
            missing.push(step.to_string());
        }
    }
    Ok(missing)
}

/// A kernel parameter is in every plan; the others are there only if something is to be done.
fn is_set(netns: &NetNs, step: &Step) -> Result<bool, PluginError> {
    match step {
        Step::SetSysctl { namespace: Namespace::Pod, key, value } => {
            Ok(netns.run(|| sysctl::read(key))?.is_ok_and(|now| now == *value))
        }
        Step::SetSysctl { namespace: Namespace::Node, .. } => Ok(true),
        _ => Ok(false),
    }
}

async fn missing_filters(
    netlink: &mut Netlink,
    pod: &NamespaceState,
    nic: &IfName,
) -> Result<Vec<String>, PluginError> {
    let Some(link) = pod.link(nic) else {
        return Ok(vec![format!("pod: link {nic}")]);
    };
    missing_filters_on(netlink, link, Namespace::Pod).await
}

async fn missing_filters_of_host_end(
    node: &mut Netlink,
    host_end: &IfName,
) -> Result<Vec<String>, PluginError> {
    // Without it the plan has a step that makes it.
    let Some(link) = node.link_by_name(host_end).await? else { return Ok(Vec::new()) };
    missing_filters_on(node, &link, Namespace::Node).await
}

async fn missing_filters_on(
    netlink: &mut Netlink,
    link: &Link,
    namespace: Namespace,
) -> Result<Vec<String>, PluginError> {
    let nic = &link.name;
    let mut missing = Vec::new();
    let mut ids = Vec::new();
    for direction in Direction::ALL {
        match netlink.own_filter(link.index, direction).await? {
            Some(filter) => ids.push(filter.classid),
            None => missing.push(format!("{namespace}: program {direction} on {nic}")),
        }
    }
    if let [ingress, egress] = ids[..]
        && ingress != egress
    {
        missing.push(format!(
            "{namespace}: one id for both programs on {nic} (ingress {ingress}, egress {egress})"
        ));
    }
    Ok(missing)
}
