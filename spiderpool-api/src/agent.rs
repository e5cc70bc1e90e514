//! The agent's HTTP API on its unix socket: paths and JSON bodies.
//!
//! `ipam` and `coordinator` are upstream's API, field for field; `dataplane` and `gc` are our own additions to it.

pub mod coordinator;
pub mod dataplane;
pub mod gc;
pub mod ipam;
mod netns;

pub use ipam::null_as_default;
pub use netns::{NetnsIdentity, OpenNetns};

/// Where the agent listens unless `ipamUnixSocketPath` says otherwise.
pub const DEFAULT_SOCKET: &str = "/var/run/spidernet/spiderpool.sock";

/// Paths below the unix socket.
pub mod path {
    /// GET: 200 when the agent answers.
    pub const HEALTHY: &str = "/v1/ipam/healthy";
    /// POST allocates, DELETE releases, for one NIC.
    pub const IP: &str = "/v1/ipam/ip";
    /// DELETE releases all addresses of a pod.
    pub const IPS: &str = "/v1/ipam/ips";
    /// GET, with a body.
    pub const COORDINATOR_CONFIG: &str = "/v1/coordinator/config";
    /// GET: the recorded endpoint of a pod.
    pub const WORKLOAD_ENDPOINT: &str = "/v1/workloadendpoint";
    /// POST frees what attachments of a network hold that are not valid any more.
    pub const IPAM_GC: &str = "/v1/ipam/gc";
    /// PUT registers NICs of a pod with the dataplane, DELETE removes them.
    pub const DATAPLANE_NICS: &str = "/v1/dataplane/nics";
    /// POST removes the attachments of a network that are not valid any more.
    pub const DATAPLANE_GC: &str = "/v1/dataplane/gc";
}
