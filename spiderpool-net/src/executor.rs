//! Applies the steps of a plan to a pod and its node, and rolls them back.

mod interfaces;

use std::collections::HashMap;

use spiderpool_core::coordinator::{Namespace, Step};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Neighbor, Route};
use thiserror::Error;
use tracing::debug;

use crate::netlink::{Netlink, NetlinkError, NewVeth};
use crate::netns::{NetNs, NetNsError};
use crate::nft::{self, NftError};
use crate::sysctl::{self, SysctlError};

/// What a step means whose device is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingDevice {
    /// An error.
    Fail,
    /// Nothing: the pod is going, or its other NICs are still to be kept right.
    Skip,
}

/// A step failed. Those before it have been applied.
#[derive(Debug, Error)]
#[error("{step}: {source}")]
pub struct ApplyError {
    /// The step.
    pub step: Box<Step>,
    /// Why.
    pub source: StepError,
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StepError {
    /// netlink.
    #[error("the kernel refused: {0}")]
    Netlink(#[from] NetlinkError),
    /// nftables.
    #[error("the kernel refused: {0}")]
    Nft(#[from] NftError),
    /// A kernel parameter.
    #[error("the kernel refused: {0}")]
    Sysctl(#[from] SysctlError),
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The step names a device that is not there.
    #[error("device {0} is gone")]
    NoDevice(IfName),
    /// The kernel does not make such links.
    #[error(
        "the kernel has no module {module}: load it (modprobe {module}), or install the package that has it: {source}"
    )]
    NoModule {
        /// Its name.
        module: &'static str,
        /// What the kernel said.
        source: NetlinkError,
    },
    /// The device cannot be a member.
    #[error(
        "device {dev} is in use, as by macvlan or ipvlan interfaces on it: name them on {master} instead: {source}"
    )]
    InUse {
        /// The device.
        dev: IfName,
        /// What it was to be a member of.
        master: IfName,
        /// What the kernel said.
        source: NetlinkError,
    },
}

impl StepError {
    /// What the step was to make is there already.
    pub fn is_exists(&self) -> bool {
        matches!(self, Self::Netlink(error) if error.is_exists())
    }
}

/// Both namespaces, and what was changed in them. The node's is the one of the thread that makes it.
pub struct Executor<'a> {
    netns: &'a NetNs,
    pod: Netlink,
    node: Netlink,
    missing_device: MissingDevice,
    indexes: HashMap<(Namespace, IfName), u32>,
    inverses: Vec<Step>,
}

impl<'a> Executor<'a> {
    /// Connects to both.
    pub fn new(netns: &'a NetNs, missing_device: MissingDevice) -> Result<Self, NetlinkError> {
        let (pod, node) = (netns.netlink()?, Netlink::open()?);
        Ok(Self { netns, pod, node, missing_device, indexes: HashMap::new(), inverses: Vec::new() })
    }

    /// The connection to one of them, to read what plans are made from.
    pub fn netlink(&mut self, namespace: Namespace) -> &mut Netlink {
        match namespace {
            Namespace::Pod => &mut self.pod,
            Namespace::Node => &mut self.node,
        }
    }

    /// Applies the steps in order, up to the first that fails.
    pub async fn apply(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let mut rest = steps;
        while let Some(first) = rest.first() {
            // Entering the pod's namespace costs a thread: kernel parameters in a row share one.
            let run = rest.iter().take_while(|step| is_pod_sysctl(step)).count();
            if run > 0 {
                self.set_pod_sysctls(&rest[..run])?;
                rest = &rest[run..];
                continue;
            }
            debug!(step = %first, "applying step");
            match self.execute(first).await {
                Ok(before) => self.inverses.extend(first.inverse(before.as_deref())),
                Err(StepError::NoDevice(_)) if self.missing_device == MissingDevice::Skip => {}
                Err(error) => return Err(failed(first)(error)),
            }
            rest = &rest[1..];
        }
        Ok(())
    }

    /// Undoes everything that was applied, last first, and goes on after a failure.
    pub async fn roll_back(&mut self) -> Vec<ApplyError> {
        let mut failures = Vec::new();
        let steps = std::mem::take(&mut self.inverses).into_iter().rev();
        // A rule of the node stays while its table has a route, and was added after the routes.
        let is_shared = |step: &Step| matches!(step, Step::DeleteRule { namespace: Namespace::Node, .. });
        let (shared, own): (Vec<Step>, Vec<Step>) = steps.partition(is_shared);
        for step in own.into_iter().chain(shared) {
            debug!(%step, "rolling back");
            let outcome = if is_pod_sysctl(&step) {
                self.set_pod_sysctls(std::slice::from_ref(&step))
            } else {
                self.execute(&step).await.map(drop).map_err(failed(&step))
            };
            failures.extend(outcome.err());
        }
        // The inverses of inverses.
        self.inverses.clear();
        failures
    }

    fn set_pod_sysctls(&mut self, steps: &[Step]) -> Result<(), ApplyError> {
        let write = || {
            let mut written = Vec::new();
            for step in steps {
                let Step::SetSysctl { key, value, .. } = step else { continue };
                written.push(sysctl::write(key, value));
                if matches!(written.last(), Some(Err(_))) {
                    break;
                }
            }
            written
        };
        let Some(first) = steps.first() else { return Ok(()) };
        for (step, before) in steps.iter().zip(self.netns.run(write).map_err(failed(first))?) {
            debug!(%step, "applying step");
            let before = before.map_err(failed(step))?;
            self.inverses.extend(step.inverse(Some(&before)));
        }
        Ok(())
    }

    /// What a kernel parameter was before; something if there were return marks.
    async fn execute(&mut self, step: &Step) -> Result<Option<String>, StepError> {
        match step {
            Step::AddNodeLink { host, host_mac, pod, pod_mac, mtu } => {
                let veth = NewVeth {
                    name: host,
                    mac: *host_mac,
                    peer_name: pod,
                    peer_mac: *pod_mac,
                    peer_netns: self.netns,
                    mtu: *mtu,
                };
                add_node_link(&mut self.pod, &mut self.node, &veth).await?;
            }
            Step::DeleteNodeLink { host } => {
                self.indexes.clear(); // both ends go
                self.node.delete_link(host).await?;
            }
            Step::Interface(step) => self.execute_on_interface(step).await?,
            Step::SetUp { namespace, dev } => {
                let (netlink, index) = self.device(*namespace, dev).await?;
                netlink.set_up(index).await?;
            }
            Step::SetDown { namespace, dev } => {
                let (netlink, index) = self.device(*namespace, dev).await?;
                netlink.set_down(index).await?;
            }
            Step::SetMac { dev, mac, .. } => {
                let (netlink, index) = self.device(Namespace::Pod, dev).await?;
                netlink.set_mac(index, *mac).await?;
            }
            Step::SetTxQueueLen { dev, length, .. } => {
                let (netlink, index) = self.device(Namespace::Pod, dev).await?;
                netlink.set_tx_queue_len(index, *length).await?;
            }
            Step::SetSysctl { namespace: Namespace::Pod, key, value } => {
                let before = self.netns.run(|| sysctl::write(key, value))??;
                return Ok(Some(before));
            }
            Step::SetSysctl { namespace: Namespace::Node, key, value } => {
                return Ok(set_node_sysctl(key, value)?);
            }
            Step::AddAddress { dev, net } => {
                let (netlink, index) = self.device(Namespace::Pod, dev).await?;
                netlink.add_address(index, *net).await?;
            }
            Step::DeleteAddress { dev, net } => {
                let (netlink, index) = self.device(Namespace::Pod, dev).await?;
                netlink.delete_address(index, *net).await?;
            }
            Step::SetNeighbor { namespace, neighbor: Neighbor { dev, address, mac } } => {
                let (netlink, dev) = self.device(*namespace, dev).await?;
                netlink.set_neighbor(&Neighbor { dev, address: *address, mac: *mac }).await?;
            }
            Step::DeleteNeighbor { namespace, neighbor } => {
                let (netlink, index) = self.device(*namespace, &neighbor.dev).await?;
                netlink.delete_neighbor(index, neighbor.address).await?;
            }
            Step::AddRoute { namespace, route } => {
                let (netlink, route) = self.route(*namespace, route).await?;
                if let Err(error) = netlink.ensure_route(&route).await {
                    let onlink = on_link(&route, error)?;
                    netlink.ensure_route(&onlink.route).await.map_err(|_| onlink.error)?;
                }
            }
            Step::ReplaceRoute { namespace, route } => {
                let (netlink, route) = self.route(*namespace, route).await?;
                netlink.replace_route(&route).await?;
            }
            Step::RestoreRoute { namespace, route } => {
                let (netlink, route) = self.route(*namespace, route).await?;
                if let Err(error) = netlink.append_route(&route).await {
                    let onlink = on_link(&route, error)?;
                    netlink.append_route(&onlink.route).await.map_err(|_| onlink.error)?;
                }
            }
            Step::DeleteRoute { namespace, route } => {
                let (netlink, route) = self.route(*namespace, route).await?;
                netlink.delete_route(&route).await?;
            }
            Step::SetReturnMarks(marks) => {
                let was_there = self.netns.run(|| nft::set_return_marks(marks))??;
                return Ok(was_there.then(String::new));
            }
            Step::DeleteReturnMarks(nic) => {
                self.netns.run(|| nft::delete_return_marks(nic))??;
            }
            Step::AddRule { namespace, rule } => self.netlink(*namespace).add_rule(rule).await?,
            Step::DeleteRule { namespace: Namespace::Pod, rule } => self.pod.delete_rule(rule).await?,
            Step::DeleteRule { namespace: Namespace::Node, rule } => self.node.delete_idle_rule(rule).await?,
        }
        Ok(None)
    }

    /// The device in its namespace.
    async fn device(&mut self, namespace: Namespace, dev: &IfName) -> Result<(&mut Netlink, u32), StepError> {
        let key = (namespace, dev.clone());
        let netlink = match namespace {
            Namespace::Pod => &mut self.pod,
            Namespace::Node => &mut self.node,
        };
        let index = if let Some(index) = self.indexes.get(&key) {
            *index
        } else {
            let link = netlink.link_by_name(dev).await?;
            link.ok_or_else(|| StepError::NoDevice(dev.clone()))?.index
        };
        self.indexes.insert(key, index);
        Ok((netlink, index))
    }

    /// The route by its device's index.
    async fn route(
        &mut self,
        namespace: Namespace,
        route: &Route,
    ) -> Result<(&mut Netlink, Route<u32>), StepError> {
        let (netlink, index) = self.device(namespace, &route.dev).await?;
        let route = route.with_dev(|_| Some(index)).ok_or_else(|| StepError::NoDevice(route.dev.clone()))?;
        Ok((netlink, route))
    }
}

/// A host end of this sandbox without its pod end is left of an earlier attempt.
async fn add_node_link(
    pod: &mut Netlink,
    node: &mut Netlink,
    veth: &NewVeth<'_, NetNs>,
) -> Result<(), NetlinkError> {
    match node.add_veth(veth).await {
        Err(error) if error.is_exists() && pod.link_by_name(veth.peer_name).await?.is_none() => {
            debug!(host = %veth.name, "node link of an earlier attempt is deleted");
            node.delete_link(veth.name).await?;
            node.add_veth(veth).await
        }
        result => result,
    }
}

/// A route to be tried again.
struct OnLink {
    route: Route<u32>,
    /// Of the first attempt, which says more than that of the second.
    error: NetlinkError,
}

/// A route may outlive the subnet of its next hop; it must be possible to move and to restore it all the same.
fn on_link(route: &Route<u32>, error: NetlinkError) -> Result<OnLink, NetlinkError> {
    if !error.is_unreachable() || route.gateway.is_none() || route.onlink {
        return Err(error);
    }
    debug!(%error, "next hop is assumed to be on the link");
    Ok(OnLink { route: Route { onlink: true, ..route.clone() }, error })
}

/// A node without IPv6 has no such parameter, and needs none.
fn set_node_sysctl(key: &str, value: &str) -> Result<Option<String>, SysctlError> {
    match sysctl::write(key, value) {
        Ok(before) => Ok(Some(before)),
        Err(SysctlError::Missing { key }) => {
            debug!(key, "kernel parameter does not exist");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn failed<E: Into<StepError>>(step: &Step) -> impl FnOnce(E) -> ApplyError {
    let step = Box::new(step.clone());
    move |error| ApplyError { step, source: error.into() }
}

fn is_pod_sysctl(step: &Step) -> bool {
    matches!(step, Step::SetSysctl { namespace: Namespace::Pod, .. })
}
