//! The state that HTTP handlers share.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tokio::sync::watch;

use crate::fallback::Fallback;
use crate::ipam::Ipam;
use crate::reconciler;
use crate::start::Start;
use crate::watches::{CoordinatorIndex, Shared};

/// The parts of the agent that requests need.
pub struct Agent {
    /// Allocates and releases.
    pub ipam: Arc<Ipam>,
    /// Registers NICs.
    pub reconciler: reconciler::Handle,
    /// Which dataplane new pods get.
    pub fallback: Fallback,
    /// Whether requests are answered already.
    pub start: Start,
    /// How pods are wired up.
    pub coordinators: Shared<CoordinatorIndex>,
    /// The Service CIDRs, whose addresses are not the node's although a device may have them.
    pub service_cidrs: watch::Sender<Vec<IpNet>>,
    /// The node's own addresses.
    pub node_addresses: Shared<Vec<IpAddr>>,
}
