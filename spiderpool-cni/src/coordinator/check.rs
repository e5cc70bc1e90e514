//! CHECK: plans again; what the plan would still do is missing.

use spiderpool_api::agent::coordinator::CoordinatorConfig;
use spiderpool_core::coordinator::{
    Config, Inputs, NODE_LINK, Namespace, NamespaceState, Step, check_pod_cidrs, host_end_name, plan_overlay,
};
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
use super::policy;
use super::register::node_addresses;
use super::setup::{PolicyMode, Task, task};
use super::state::{host_veth, next_hop_mac, read_host_end, read_pod, sources};
use crate::env::Request;
use crate::error::{CheckError, PluginError};

pub(super) async fn check(request: &Request, conf: &NetConf) -> Result<(), PluginError> {
    let netns = NetNs::open(&request.netns)?;
    let (config, answer) = conf.resolve(request)?;
    let (mut pod_netlink, mut node) = (netns.netlink()?, Netlink::open()?);
    let pod = read_pod(&mut pod_netlink, request, conf, Contents::PLAIN).await?;
    match task(&mut pod_netlink, &config, &request.nic, &pod).await? {
        None => return Ok(()),
        Some(Task::Ebpf) => {}
        Some(Task::Policy(mode)) => {
            let missing = missing_of_policy(mode, request, conf, &config, &answer, &netns).await?;
            return report(request, missing);
        }
    }
    let host_end = host_end_name(request.container_id.as_str())?;
    let addresses = pod.usable_addresses(&request.nic);
    check_pod_cidrs(&request.nic, &addresses, &config.pod_cidrs, &answer.address_pools)?;
    let host_veth = host_veth(&mut node, &pod, &config.first_nic).await?;
    let next_hop_mac = next_hop_mac(&mut pod_netlink, &pod, &config.first_nic, &host_veth).await?;
    let plan = plan_overlay(&Inputs {
        container_id: request.container_id.as_str(),
        nic: &request.nic,
        config: &config,
        pod: &pod,
        host_end: &read_host_end(&mut node, &host_end).await?,
        host_veth_mac: next_hop_mac,
        nodes: &node_addresses(&answer),
        sources: &sources(&mut node, &pod, &request.nic).await,
        expected: answer.expected_nics.as_deref(),
    })?;
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
    for nic in [config.first_nic.as_str(), NODE_LINK, request.nic.as_str()] {
        missing.extend(missing_filters(&mut pod_netlink, &pod, nic).await?);
    }
    missing.extend(missing_filters_of_host_end(&mut node, &host_end).await?);
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
    mode: PolicyMode,
    request: &Request,
    conf: &NetConf,
    config: &Config,
    answer: &CoordinatorConfig,
    netns: &NetNs,
) -> Result<Vec<String>, PluginError> {
    let mut executor = Executor::new(netns, MissingDevice::Fail)?;
    let steps = policy::plan(mode, request, conf, config, answer, &mut executor).await?;
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
    nic: &str,
) -> Result<Vec<String>, PluginError> {
    let name: Option<IfName> = nic.parse().ok();
    let Some(link) = name.and_then(|name| pod.link(&name)) else {
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
