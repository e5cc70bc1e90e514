//! Command line and environment. Values are trimmed; one that is needed may not be empty.

use std::path::PathBuf;

use clap::Args;
use spiderpool_core::names::NodeName;
use spiderpool_dataplane::{PodUsage, Sizes};
use spiderpool_runtime::environment::{required, switch, trimmed};
use spiderpool_runtime::logging::Level;

use crate::multus::MultusOptions;
use crate::node::missing_plugins::PluginFolders;

/// Arguments of `spiderpool-agent daemon`.
#[derive(Debug, Clone, Args)]
pub struct Daemon {
    /// The configuration file, YAML.
    #[arg(long, value_name = "FILE", default_value = super::DEFAULT_CONFIG)]
    pub config_path: PathBuf,
    /// What the DaemonSet gives by environment.
    #[command(flatten)]
    pub environment: Environment,
}

/// The environment. Every variable is a flag as well, for running by hand.
#[derive(Debug, Clone, Args)]
pub struct Environment {
    /// debug, info, warn, error, fatal or panic.
    #[arg(long, env = "SPIDERPOOL_LOG_LEVEL", default_value = "info", value_parser = trimmed::<Level>)]
    pub log_level: Level,
    /// Whether metrics are served.
    #[arg(long, env = "SPIDERPOOL_ENABLED_METRIC", default_value = "false", value_parser = switch, action = clap::ArgAction::Set)]
    pub enabled_metric: bool,
    /// Namespace of the agent's own pod.
    #[arg(long, env = "SPIDERPOOL_POD_NAMESPACE", value_parser = required)]
    pub pod_namespace: String,
    /// Name of the agent's own pod.
    #[arg(long, env = "SPIDERPOOL_POD_NAME", value_parser = required)]
    pub pod_name: String,
    /// The node that the agent serves.
    #[arg(long, env = "SPIDERPOOL_NODE_NAME", value_parser = trimmed::<NodeName>)]
    pub node_name: NodeName,
    /// Port of the health probes.
    #[arg(long, env = "SPIDERPOOL_HEALTH_PORT", default_value = "5710", value_parser = trimmed::<u16>)]
    pub health_port: u16,
    /// Port of the metrics.
    #[arg(long, env = "SPIDERPOOL_METRIC_HTTP_PORT", default_value = "5711", value_parser = trimmed::<u16>)]
    pub metric_http_port: u16,
    /// Whether addresses that conflict on the wire are released.
    #[arg(long, env = "SPIDERPOOL_ENABLED_RELEASE_CONFLICT_IPS", default_value = "true", value_parser = switch, action = clap::ArgAction::Set)]
    pub enabled_release_conflict_ips: bool,
    /// The network of every pod's first NIC, `NAMESPACE/NAME`.
    #[arg(long, env = "MULTUS_CLUSTER_NETWORK", default_value = "", value_parser = trimmed::<String>)]
    pub multus_cluster_network: String,
    /// The eBPF object with programs and maps.
    #[arg(long, env = "SPIDERPOOL_BPF_OBJECT", default_value = "/usr/lib/spiderpool/spiderpool.o")]
    pub bpf_object: PathBuf,
    /// Where programs and maps are pinned; must be on a mounted bpffs.
    #[arg(long, env = "SPIDERPOOL_BPF_DIR", default_value = "/sys/fs/bpf/spiderpool/v1")]
    pub bpf_dir: PathBuf,
    /// The node's mount namespace, where plugins look for the pins: a container sees those of the BPF file system that was mounted
    /// when it started. Absent where the agent is in that namespace itself.
    #[arg(long, env = "SPIDERPOOL_NODE_MOUNT_NAMESPACE")]
    pub node_mount_namespace: Option<PathBuf>,
    /// Where the inventory of the node's pods is kept. Must survive the agent's container, not a reboot.
    #[arg(long, env = "SPIDERPOOL_STATE_DIR", default_value = "/var/run/spidernet")]
    pub state_dir: PathBuf,
    /// How many entries the maps have.
    #[command(flatten)]
    pub map_sizes: MapSizes,
    /// Whether the limit of locked memory is lifted, which needs the capability `SYS_RESOURCE`: before Linux 5.11 maps and
    /// programs count against it.
    #[arg(long, env = "SPIDERPOOL_RAISE_MEMLOCK", default_value = "false", value_parser = switch, action = clap::ArgAction::Set)]
    pub raise_memlock: bool,
    /// The plugins that are put back when they vanish.
    #[command(flatten)]
    pub plugins: PluginFolders,
    /// Multus on the node.
    #[command(flatten)]
    pub multus: MultusOptions,
}

/// A pod may have this part of each map of flows.
const SHARES: u32 = 8;

/// Sizes of the maps. A map whose size changes is replaced; the flows are copied.
#[derive(Debug, Clone, Args)]
pub struct MapSizes {
    /// NICs of all pods of the node, eth0 and sp0 included.
    #[arg(long, env = "SPIDERPOOL_BPF_NICS", default_value = "1023", value_parser = number(1, 65_535))]
    pub bpf_nics: u32,
    /// CIDRs that are steered or stay, of all profiles together.
    #[arg(long, env = "SPIDERPOOL_BPF_CIDRS", default_value = "16384", value_parser = number(64, 1 << 24))]
    pub bpf_cidrs: u32,
    /// Flows that came in by an underlay NIC, and calls of UDP servers.
    #[arg(long, env = "SPIDERPOOL_BPF_ARRIVALS", default_value = "65536", value_parser = number(64, 1 << 24))]
    pub bpf_arrivals: u32,
    /// Entries for translated flows, two per flow.
    #[arg(long, env = "SPIDERPOOL_BPF_NAT", default_value = "262144", value_parser = number(64, 1 << 24))]
    pub bpf_nat: u32,
    /// Flows to pods by their node links.
    #[arg(long, env = "SPIDERPOOL_BPF_LINK_FLOWS", default_value = "262144", value_parser = number(64, 1 << 24))]
    pub bpf_link_flows: u32,
}

impl MapSizes {
    /// As the maps are made; id 0 is no NIC's.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            nics: self.bpf_nics + 1,
            cidrs: self.bpf_cidrs,
            arrivals: self.bpf_arrivals,
            nat: self.bpf_nat,
            link_flows: self.bpf_link_flows,
            per_pod: PodUsage {
                link_flows: self.bpf_link_flows / SHARES,
                arrivals: self.bpf_arrivals / SHARES,
                nat: self.bpf_nat / SHARES,
            },
        }
    }
}

fn number(least: u32, most: u32) -> impl Fn(&str) -> Result<u32, String> + Clone {
    move |text| {
        let number = trimmed::<u32>(text)?;
        let fits = (least..=most).contains(&number);
        fits.then_some(number).ok_or_else(|| format!("it must be from {least} to {most}"))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Probe {
        #[command(flatten)]
        daemon: Daemon,
    }

    fn parse(extra: &[&str]) -> Result<Environment, String> {
        let required = ["probe", "--pod-namespace", "kube-system", "--pod-name", "a", "--node-name", "n1"];
        let probe = Probe::try_parse_from(required.iter().chain(extra)).map_err(|error| error.to_string())?;
        Ok(probe.daemon.environment)
    }

    #[test]
    fn defaults_are_upstreams() {
        let environment = parse(&[]).unwrap();
        assert_eq!((environment.health_port, environment.metric_http_port), (5710, 5711));
        assert!(!environment.enabled_metric && environment.enabled_release_conflict_ips);
    }

    #[test]
    fn map_sizes_are_the_dataplanes_unless_given() {
        assert_eq!(parse(&[]).unwrap().map_sizes.sizes(), Sizes::default());
        let given =
            ["--bpf-nics", "65535", "--bpf-cidrs", " 64 ", "--bpf-arrivals", "100", "--bpf-nat", "200"];
        let per_pod = PodUsage { arrivals: 12, nat: 25, ..Sizes::default().per_pod };
        let sizes = Sizes { nics: 65_536, cidrs: 64, arrivals: 100, nat: 200, per_pod, ..Sizes::default() };
        assert_eq!(parse(&given).unwrap().map_sizes.sizes(), sizes);
        assert!(parse(&["--bpf-nics", "65536"]).unwrap_err().contains("from 1 to 65535"));
    }

    #[test]
    fn values_are_trimmed_and_checked() {
        assert!(parse(&["--enabled-metric", " true "]).unwrap().enabled_metric);
        assert!(parse(&["--enabled-metric", "yes"]).unwrap_err().contains("neither true nor false"));
        assert!(parse(&["--health-port", "70000"]).is_err());
        assert!(parse(&["--log-level", "loud"]).unwrap_err().contains("loud"));
    }
}
