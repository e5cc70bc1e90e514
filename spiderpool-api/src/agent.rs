//! The agent's HTTP API on its unix socket: paths and JSON bodies.
//!
//! `ipam` and `coordinator` are upstream's API, field for field; `dataplane` is our own addition to it.

pub mod coordinator;
pub mod dataplane;
pub mod ipam;

pub use ipam::null_as_default;

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
    /// PUT registers NICs of a pod with the dataplane, DELETE removes them.
    pub const DATAPLANE_NICS: &str = "/v1/dataplane/nics";
}
