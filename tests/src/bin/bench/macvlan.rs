//! ADD of `macvlan` with our IPAM plugin, an address of each family: whole processes, with a real agent and a real
//! API server, with and without duplicate address detection.

use std::time::Instant;

use anyhow::{Context as _, Result};
use serde_json::json;
use spiderpool_tests::agent::Agent;
use spiderpool_tests::cni::Network;
use spiderpool_tests::lab::{Lab, spec};
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::pod::{Pod, PodSpec};

use crate::samples::{Pair, Report};

/// Pods per row: with detection each takes seconds.
const PODS: usize = 10;

/// Leaves the lab without agents.
pub(crate) fn measure(lab: &mut Lab, report: &mut Report) -> Result<()> {
    for (title, enabled) in [("off", false), ("on", true)] {
        for agent in lab.agents.drain(..) {
            agent.stop()?;
        }
        let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
        let config = json!({"enableDuplicateAddressDetection": enabled});
        let agent = Agent::start_with_config(plane, node, &config)?;
        let mut rows = Pair::default();
        for index in 0..PODS {
            let name = format!("macvlan-{title}-{index}");
            rows.ours.push(one_pod(lab, &name).with_context(|| name)?);
        }
        report.add(format!("macvlan ADD with IPv6, address detection {title}"), "ms", &rows);
        agent.stop()?;
    }
    Ok(())
}

fn one_pod(lab: &Lab, name: &str) -> Result<f64> {
    let (plane, node) = (&lab.topology.plane, &lab.topology.nodes[0]);
    let PodSpec { networks, .. } = spec(name, DefaultRoute::Eth0);
    let network = networks.into_iter().next().context("the pod has no second network")?;
    let macvlan = Network { plugins: network.plugins[..1].to_vec(), ..network };
    let mut pod = Pod::add(plane, node, &PodSpec { name: name.into(), ..PodSpec::default() })?;
    let start = Instant::now();
    pod.attach(node, "net1", &macvlan)?;
    let wall_ms = start.elapsed().as_secs_f64() * 1000.0;
    pod.del(plane, node)?;
    Ok(wall_ms)
}
