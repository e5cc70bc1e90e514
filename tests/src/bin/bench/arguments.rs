//! Arguments of benchmarks that more than one module reads.

use std::path::PathBuf;

use clap::Args;

#[derive(Args)]
pub(crate) struct DataplaneArguments {
    /// Rounds; in each, every path is measured with and without programs.
    #[arg(long, default_value_t = 10)]
    pub(crate) rounds: usize,
    /// Round trips per path and round.
    #[arg(long, default_value_t = 2000)]
    pub(crate) trips: usize,
    /// Connections per path and round, each for a few bytes.
    #[arg(long, default_value_t = 300)]
    pub(crate) connections: usize,
    /// MiB that one stream carries per path and round.
    #[arg(long, default_value_t = 512)]
    pub(crate) mebibytes: usize,
    /// Pods on the node for the rows that are measured with many: what they cost is compared with the same rows before.
    #[arg(long, default_value_t = 0)]
    pub(crate) pods: usize,
    /// Only how quickly the agent answers while so many flows are alive in each of its three maps of them (65000 fit): ADDs, one DEL,
    /// 100 DELs at once; CPU time and memory. A round takes half a minute.
    #[arg(long, conflicts_with = "policy")]
    pub(crate) flows: Option<usize>,
    /// The peer of each row is a pod with `dataplane: policy`, ip rules in place of programs.
    #[arg(long, conflicts_with = "peer_build")]
    pub(crate) policy: bool,
    /// Target directory of another build (`bin`, `bpf/spiderpool.o`), measured in alternating labs: the peer of each
    /// row is then the same path with that build's programs, agent and plugins.
    #[arg(long, value_name = "DIR")]
    pub(crate) peer_build: Option<PathBuf>,
    /// Labs of each build; only with --peer-build.
    #[arg(long, default_value_t = 3)]
    pub(crate) labs: usize,
}
