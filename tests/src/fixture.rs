//! Where the flow matrix and the demo take namespaces: the lab of namespaces, or a cluster with kubelets.

use anyhow::Result;
use spiderpool_core::ip::Family;

use crate::counters;
use crate::flow::{Flow, run_in_parallel};
use crate::matrix::{DefaultRoute, Host, Hosts};
pub use crate::matrix::{Gateway, RouteHints};
use crate::namespaces::Namespaces;

/// Two nodes with Spiderpool, Services with an overlay and an underlay endpoint, and an underlay with a gateway.
pub trait Fixture {
    /// Runs kubectl as administrator.
    fn kubectl(&self, arguments: &[&str]) -> Result<String>;

    /// The node of the pods under test.
    fn node(&self) -> &Namespaces;

    /// Sets route hints for pods to come, and waits until the agent of [`Self::node`] knows.
    fn set_route_hints(&mut self, hints: RouteHints) -> Result<()>;

    /// Makes a pod with eth0 and net1 on [`Self::node`], with a server in it.
    fn add_pod(&mut self, name: &str, default_route: DefaultRoute) -> Result<Host>;

    /// Who takes part in the flows of a pod.
    fn hosts(&self, pod: &Host, default_route: DefaultRoute) -> Hosts;

    /// Cuts the gateway off from the underlay, or connects it again.
    fn set_underlay_gateway(&self, state: Gateway) -> Result<()>;

    /// Adds a CIDR of ClusterIPs to those of the cluster.
    fn add_service_cidr(&self, cidr: &str) -> Result<()>;

    /// Takes it away again.
    fn remove_service_cidr(&self, cidr: &str) -> Result<()>;

    /// Command lines that open a shell in each place, by the place's name.
    fn ways_in(&self) -> Result<Vec<(String, String)>>;

    /// Removes what was made, and checks that nothing of it is left.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Runs `work` with the underlay's gateway dead: silent, and forgotten by the pod.
pub fn without_gateway<T>(fixture: &dyn Fixture, pod: &Namespaces, work: impl FnOnce() -> T) -> Result<T> {
    fixture.set_underlay_gateway(Gateway::Dead)?;
    // Permanent entries stay.
    pod.ip("neigh flush dev net1")?;
    let result = work();
    fixture.set_underlay_gateway(Gateway::Alive)?;
    Ok(result)
}

/// Runs every flow for a new pod per mode: default route on either NIC, the given hints, both families, and what must
/// work without the underlay's gateway. What failed, in words: flow, mode, family, and the counters that moved.
pub fn run_matrix(fixture: &mut dyn Fixture, modes: &[RouteHints]) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for hints in modes {
        fixture.set_route_hints(*hints)?;
        for default_route in DefaultRoute::ALL {
            let name = format!("app-{}-hints-{}", default_route.nic(), hints.name());
            let pod = fixture.add_pod(&name, default_route)?;
            let hosts = fixture.hosts(&pod, default_route);
            for family in Family::ALL {
                failed.extend(run(fixture, &pod, &hosts.flows(family))?);
                if works_without_gateway(*hints, default_route) {
                    let flows = hosts.flows_without_gateway(family);
                    failed.extend(without_gateway(fixture, &pod.namespaces, || run(fixture, &pod, &flows))??);
                }
            }
            // Last: what such a connection sends again would be taken for an answer of a later flow.
            for family in Family::ALL {
                let flows = hosts.flows_beyond(family);
                let served = flows.iter().zip(run_in_parallel(&flows)).filter(|(_, works)| *works);
                failed.extend(
                    served.map(|(flow, _)| format!("{flow} works, and is in the list of those that cannot")),
                );
            }
        }
    }
    Ok(failed)
}

/// Without hints a packet whose next hop does not resolve never reaches a program.
pub fn works_without_gateway(hints: RouteHints, default_route: DefaultRoute) -> bool {
    hints == RouteHints::Auto || default_route == DefaultRoute::Eth0
}

fn run(fixture: &dyn Fixture, pod: &Host, flows: &[Flow]) -> Result<Vec<String>> {
    let ids = counters::nic_ids(&pod.namespaces)?;
    let read = || counters::read(fixture.node(), &ids);
    let mut failed = Vec::new();
    for flow in flows {
        let before = read()?;
        if let Err(error) = flow.run().result {
            let moved = counters::moved(&before, &read()?);
            failed
                .push(format!("{}: {flow}: {error:#}; counters that moved: {moved:?}", pod.namespaces.name));
        }
    }
    Ok(failed)
}
