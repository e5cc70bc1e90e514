//! Command line and environment of `spiderpool-init`. Values may be in double quotes, as the chart writes them.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use spiderpool_runtime::environment::{seconds, trimmed};
use spiderpool_runtime::logging::Level;

/// Arguments of `spiderpool-init`.
#[derive(Debug, Clone, Parser)]
#[command(name = "spiderpool-init", version, about = "Spiderpool's default objects and definitions")]
pub struct Init {
    /// debug, info, warn, error, fatal or panic.
    #[arg(long, env = "SPIDERPOOL_LOG_LEVEL", default_value = "info", value_parser = trimmed::<Level>, global = true)]
    pub log_level: Level,
    /// Seconds after which it gives up, with a message.
    #[arg(long, env = "SPIDERPOOL_INIT_DEADLINE", default_value = "120", value_parser = seconds, global = true)]
    pub deadline: Duration,
    /// What the chart's values say.
    #[command(flatten)]
    pub values: Values,
    /// Nothing: the default objects.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What else it can do.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum Command {
    /// Brings the CustomResourceDefinitions to the version of this binary.
    ApplyCrds,
}

macro_rules! values {
    ($($(#[$doc:meta])* $name:ident = $variable:literal,)*) => {
        /// The chart's values; empty means not set.
        #[derive(Debug, Clone, Default, Args)]
        pub struct Values {
            $(
                $(#[$doc])*
                #[arg(long, env = $variable, default_value = "", value_parser = unquoted, hide_default_value = true)]
                pub $name: String,
            )*
        }
    };
}

values! {
    /// Name of the SpiderCoordinator; empty for none.
    coordinator_name = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_NAME",
    /// auto, underlay, overlay or disabled.
    coordinator_mode = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_MODE",
    /// none or cluster.
    coordinator_pod_cidr_type = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_CIDR_TYPE",
    /// true or false.
    coordinator_tune_pod_routes = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_TUNE_POD_ROUTES",
    /// JSON list, or addresses and CIDRs with commas or blanks between them.
    coordinator_hijack_cidr = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_HIJACK_CIDR",
    /// JSON list of `{"dst": ..., "gw": ...}`.
    coordinator_policy_routes = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POLICY_ROUTES",
    /// Address of veth0 in underlay mode.
    coordinator_veth_link_address = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_VETH_LINK_ADDRESS",
    /// MTU of veth0.
    coordinator_veth_mtu = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_VETH_MTU",
    /// ebpf or policy.
    coordinator_dataplane = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_DATAPLANE",
    /// auto or never.
    coordinator_ebpf_route_hints = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_EBPF_ROUTE_HINTS",
    /// The NIC that keeps the default route.
    coordinator_pod_default_route_nic = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_DEFAULT_ROUTE_NIC",
    /// Two bytes before the IPv4 address make the MAC address.
    coordinator_pod_mac_prefix = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_MAC_PREFIX",
    /// Value of rp_filter in pods.
    coordinator_pod_rp_filter = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_POD_RP_FILTER",
    /// txqueuelen of the NICs.
    coordinator_tx_queue_len = "SPIDERPOOL_INIT_DEFAULT_COORDINATOR_TX_QUEUE_LEN",
    /// Not supported yet.
    ipv4_subnet_name = "SPIDERPOOL_INIT_DEFAULT_IPV4_SUBNET_NAME",
    /// Name of the default IPv4 pool; empty for none.
    ipv4_pool_name = "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_NAME",
    /// Its subnet.
    ipv4_pool_subnet = "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_SUBNET",
    /// Its addresses: JSON list, or with commas or blanks between them.
    ipv4_pool_ranges = "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_IPRANGES",
    /// Its gateway.
    ipv4_pool_gateway = "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_GATEWAY",
    /// Not supported yet.
    ipv6_subnet_name = "SPIDERPOOL_INIT_DEFAULT_IPV6_SUBNET_NAME",
    /// Name of the default IPv6 pool; empty for none.
    ipv6_pool_name = "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_NAME",
    /// Its subnet.
    ipv6_pool_subnet = "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_SUBNET",
    /// Its addresses.
    ipv6_pool_ranges = "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_IPRANGES",
    /// Its gateway.
    ipv6_pool_gateway = "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_GATEWAY",
    /// Not supported yet: only false or empty.
    enable_multus_config = "SPIDERPOOL_INIT_ENABLE_MULTUS_CONFIG",
}

#[expect(clippy::unnecessary_wraps, reason = "clap wants a parser that may fail")]
fn unquoted(text: &str) -> Result<String, std::convert::Infallible> {
    let text = text.trim();
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    Ok(inner.unwrap_or(text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lose_their_quotes_and_blanks() {
        let init =
            Init::try_parse_from(["init", "--coordinator-name", "\"default\"", "--ipv4-pool-name", " a "]);
        let values = init.unwrap().values;
        assert_eq!((values.coordinator_name.as_str(), values.ipv4_pool_name.as_str()), ("default", "a"));
        assert_eq!(values.coordinator_mode, "");
    }

    #[test]
    fn the_deadline_is_a_number_of_seconds() {
        let parse = |text: &str| Init::try_parse_from(["init", "--deadline", text, "apply-crds"]);
        let init = parse("5").unwrap();
        assert_eq!(init.deadline, Duration::from_secs(5));
        assert!(matches!(init.command, Some(Command::ApplyCrds)));
        assert!(parse("soon").is_err());
    }
}
