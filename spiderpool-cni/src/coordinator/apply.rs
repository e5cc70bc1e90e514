//! Does the steps of a plan, and undoes them if a later one fails.

use std::collections::HashMap;

use spiderpool_core::coordinator::{Place, Step};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Neighbor, Route};
use spiderpool_net::netlink::{Netlink, NetlinkError, NewVeth};
use spiderpool_net::netns::NetNs;
use spiderpool_net::sysctl::{self, SysctlError};
use tracing::{debug, warn};

use crate::error::PluginError;

/// The two namespaces, and what was done to them.
pub(super) struct Applier<'a> {
    pod: &'a NetNs,
    pub(super) pod_netlink: Netlink,
    pub(super) node_netlink: Netlink,
    indexes: HashMap<(Place, IfName), u32>,
    done: Vec<Step>,
}

impl<'a> Applier<'a> {
    pub(super) fn new(pod: &'a NetNs) -> Result<Self, PluginError> {
        Ok(Self {
            pod,
            pod_netlink: pod.netlink()?,
            node_netlink: Netlink::open()?,
            indexes: HashMap::new(),
            done: Vec::new(),
        })
    }

    /// Does the steps in order, up to the first that fails.
    pub(super) fn apply(&mut self, steps: &[Step]) -> Result<(), PluginError> {
        let mut rest = steps;
        while let Some(first) = rest.first() {
            // Entering the pod's namespace costs a thread: kernel parameters in a row share one.
            let run = rest.iter().take_while(|step| is_pod_sysctl(step)).count();
            if run > 0 {
                self.set_pod_sysctls(&rest[..run])?;
                rest = &rest[run..];
                continue;
            }
            debug!(step = %first, "step");
            let before = self.execute(first).map_err(|error| of_step(first, error))?;
            self.done.extend(first.inverse(before.as_deref()));
            rest = &rest[1..];
        }
        Ok(())
    }

    /// Undoes everything, last first. What cannot be undone is logged: the runtime's DEL comes after.
    pub(super) fn undo(&mut self) {
        for step in std::mem::take(&mut self.done).into_iter().rev() {
            debug!(%step, "undo");
            let undone = match &step {
                Step::SetSysctl { place: Place::Pod, .. } => {
                    self.write_pod_sysctls(std::slice::from_ref(&step)).map(drop)
                }
                _ => self.execute(&step).map(drop),
            };
            if let Err(error) = undone {
                warn!(%step, %error, "step cannot be undone");
            }
        }
    }

    fn set_pod_sysctls(&mut self, steps: &[Step]) -> Result<(), PluginError> {
        for (step, before) in steps.iter().zip(self.write_pod_sysctls(steps)?) {
            debug!(%step, "step");
            let before = before.map_err(|error| of_step(step, error.into()))?;
            self.done.extend(step.inverse(Some(&before)));
        }
        Ok(())
    }

    /// Writes up to the first that fails; what they were before.
    fn write_pod_sysctls(&self, steps: &[Step]) -> Result<Vec<Result<String, SysctlError>>, PluginError> {
        Ok(self.pod.run(|| {
            let mut written = Vec::new();
            for step in steps {
                let Step::SetSysctl { key, value, .. } = step else { continue };
                written.push(sysctl::write(key, value));
                if matches!(written.last(), Some(Err(_))) {
                    break;
                }
            }
            written
        })?)
    }

    /// What a kernel parameter of the node was before.
    fn execute(&mut self, step: &Step) -> Result<Option<String>, PluginError> {
        match step {
            Step::AddNodeLink { host, host_mac, pod, pod_mac, mtu } => {
                self.add_node_link(
                    host,
                    pod,
                    &NewVeth {
                        name: host,
                        mac: *host_mac,
                        peer_name: pod,
                        peer_mac: *pod_mac,
                        peer_netns: self.pod,
                        mtu: *mtu,
                    },
                )?;
            }
            Step::DeleteNodeLink { host } => {
                self.indexes.clear(); // both ends go
                self.node_netlink.delete_link(host)?;
            }
            Step::SetUp { place, dev } => self.with(*place, dev, Netlink::set_up)?,
            Step::SetDown { place, dev } => {
                self.with(*place, dev, Netlink::set_down)?;
            }
            Step::SetMac { dev, mac, .. } => {
                self.with(Place::Pod, dev, |netlink, index| netlink.set_mac(index, *mac))?;
            }
            Step::SetTxQueueLen { dev, length, .. } => {
                self.with(Place::Pod, dev, |netlink, index| netlink.set_tx_queue_len(index, *length))?;
            }
            Step::SetSysctl { key, value, .. } => return set_node_sysctl(key, value),
            Step::AddAddress { dev, net } => {
                self.with(Place::Pod, dev, |netlink, index| netlink.add_address(index, *net))?;
            }
            Step::DeleteAddress { dev, net } => {
                self.with(Place::Pod, dev, |netlink, index| netlink.delete_address(index, *net))?;
            }
            Step::SetNeighbor { place, neighbor } => self.with(*place, &neighbor.dev, |netlink, dev| {
                netlink.set_neighbor(&Neighbor { dev, address: neighbor.address, mac: neighbor.mac })
            })?,
            Step::DeleteNeighbor { place, neighbor } => {
                self.with(*place, &neighbor.dev, |netlink, index| {
                    netlink.delete_neighbor(index, neighbor.address)
                })?;
            }
            Step::AddRoute { place, route } => {
                self.with_route(*place, route, |n, r| put(n, r, Netlink::ensure_route))?;
            }
            Step::ReplaceRoute { place, route } => self.with_route(*place, route, Netlink::replace_route)?,
            Step::RestoreRoute { place, route } => {
                self.with_route(*place, route, |n, r| put(n, r, Netlink::append_route))?;
            }
            Step::DeleteRoute { place, route } => self.with_route(*place, route, Netlink::delete_route)?,
        }
        Ok(None)
    }

    /// A host end of this sandbox without its pod end is left of an earlier attempt.
    fn add_node_link(
        &mut self,
        host: &IfName,
        pod: &IfName,
        veth: &NewVeth<'_, NetNs>,
    ) -> Result<(), PluginError> {
        match self.node_netlink.add_veth(veth) {
            Err(error) if error.is_exists() && self.pod_netlink.link_by_name(pod)?.is_none() => {
                warn!(%host, "node link of an earlier attempt is deleted");
                self.node_netlink.delete_link(host)?;
                Ok(self.node_netlink.add_veth(veth)?)
            }
            result => Ok(result?),
        }
    }

    fn with<E: Into<PluginError>>(
        &mut self,
        place: Place,
        dev: &IfName,
        act: impl FnOnce(&mut Netlink, u32) -> Result<(), E>,
    ) -> Result<(), PluginError> {
        let key = (place, dev.clone());
        let netlink = match place {
            Place::Pod => &mut self.pod_netlink,
            Place::Node => &mut self.node_netlink,
        };
        let index = match self.indexes.get(&key) {
            Some(index) => *index,
            None => netlink.link_by_name(dev)?.ok_or_else(|| PluginError::NoDevice(dev.clone()))?.index,
        };
        self.indexes.insert(key, index);
        act(netlink, index).map_err(Into::into)
    }

    fn with_route<E: Into<PluginError>>(
        &mut self,
        place: Place,
        route: &Route,
        act: impl FnOnce(&mut Netlink, &Route<u32>) -> Result<(), E>,
    ) -> Result<(), PluginError> {
        self.with(place, &route.dev, |netlink, index| match route.with_dev(|_| Some(index)) {
            Some(route) => act(netlink, &route).map_err(Into::into),
            None => Ok(()),
        })
    }
}

/// A route may outlive the subnet of its next hop; it is moved, and put back, all the same.
fn put(
    netlink: &mut Netlink,
    route: &Route<u32>,
    act: impl Fn(&mut Netlink, &Route<u32>) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    match act(netlink, route) {
        Err(error) if error.is_unreachable() && route.gateway.is_some() && !route.onlink => {
            debug!(%error, "next hop is assumed to be on the link");
            act(netlink, &Route { onlink: true, ..route.clone() }).map_err(|_| error)
        }
        result => result,
    }
}

fn of_step(step: &Step, error: PluginError) -> PluginError {
    PluginError::Step { step: step.to_string(), source: Box::new(error) }
}

fn is_pod_sysctl(step: &Step) -> bool {
    matches!(step, Step::SetSysctl { place: Place::Pod, .. })
}

#[cfg(test)]
mod tests;

/// A node without IPv6 has no such parameter, and needs none.
fn set_node_sysctl(key: &str, value: &str) -> Result<Option<String>, PluginError> {
    match sysctl::write(key, value) {
        Ok(before) => Ok(Some(before)),
        Err(SysctlError::Missing { key }) => {
            debug!(key, "kernel parameter does not exist");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
