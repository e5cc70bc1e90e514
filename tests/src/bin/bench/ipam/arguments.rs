//! What `bench ipam` can be told.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

#[derive(Args)]
pub(crate) struct IpamArguments {
    /// Another agent with the same socket API, configuration and custom resources, measured in alternating rounds.
    #[arg(long, conflicts_with_all = ["in_use", "full_pool"])]
    pub(super) peer_agent: Option<PathBuf>,
    /// Another IPAM plugin with the same configuration, measured in alternating calls.
    #[arg(long)]
    pub(super) peer_plugin: Option<PathBuf>,
    /// Rounds of the allocation benchmark.
    #[arg(long, default_value_t = 3)]
    pub(super) rounds: usize,
    /// Pods that want an address each.
    #[arg(long, default_value_t = 1000)]
    pub(super) pods: usize,
    /// Agents, each for its own node.
    #[arg(long, default_value_t = 10)]
    pub(super) agents: usize,
    /// ADDs in flight per agent; several numbers, separated by commas, are measured one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [10])]
    pub(super) in_flight: Vec<usize>,
    /// A controller leads, as in a cluster, and tells agents what is in use of pools where they would collide. Not with a peer that
    /// is upstream's: what that wrote into pools would be taken over.
    #[arg(long)]
    pub(super) leader: bool,
    /// Calls of the plugin.
    #[arg(long, default_value_t = 100)]
    pub(super) calls: usize,
    /// Only single ADDs while so many addresses are in use, in ascending order and separated by commas; and the memory of agent,
    /// controller and API server then. All are in use by pods with endpoints, from one pool. A leader runs.
    #[arg(long, value_delimiter = ',', conflicts_with = "full_pool")]
    pub(super) in_use: Vec<usize>,
    /// The pool for --in-use.
    #[arg(long, value_enum, default_value_t = GrowthPool::Slash14)]
    pub(super) in_use_of: GrowthPool,
    /// Pods on the node on which --in-use measures; each is one ADD.
    #[arg(long, default_value_t = 250)]
    pub(super) node_pods: usize,
    /// Only a pool of so many addresses, 99 in 100 of which are in use: half of those that are left are asked for at once. A leader
    /// runs.
    #[arg(long, value_name = "ADDRESSES")]
    pub(super) full_pool: Option<usize>,
}

/// What addresses are taken from, and what that is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum GrowthPool {
    /// An IPv4 /14 (262142 addresses), compared with the same pool with nothing in use.
    #[value(name = "/14")]
    Slash14,
    /// An IPv6 /64, compared with an IPv4 /24 of which 10 are in use.
    #[value(name = "/64")]
    Slash64,
}
