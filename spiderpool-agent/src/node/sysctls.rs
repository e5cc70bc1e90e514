//! Kernel parameters of the node, where the configuration wants them (`tuneSysctlConfig`).

use std::fs;
use std::path::Path;

use spiderpool_core::ip::Family;
use spiderpool_net::sysctl::{self, SysctlError};
use tracing::{debug, info, warn};

/// A strict filter is somebody's decision.
const STRICT: &str = "1";
const RP_FILTER: &str = "net/ipv4/conf/all/rp_filter";
const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";

/// Key below /proc/sys, value, and the family that it is for.
const WANTED: [(&str, &str, Family); 6] = [
    ("net/ipv4/neigh/default/gc_thresh3", "28160", Family::V4),
    ("net/ipv6/neigh/default/gc_thresh3", "28160", Family::V6),
    ("net/ipv4/conf/all/arp_notify", "1", Family::V4),
    ("net/ipv4/conf/all/forwarding", "1", Family::V4),
    (FORWARDING_V6, "1", Family::V6),
    (RP_FILTER, "0", Family::V4),
];

/// The node's IPv6 settings before.
#[derive(Debug, Default)]
struct Ipv6 {
    forwards: bool,
    /// NICs with `accept_ra` 1: they accept router advertisements as long as the node does not forward.
    accept_ra: Vec<String>,
}

/// Writes the parameters of these families; one that this kernel does not have is skipped.
pub(super) fn tune(families: &[Family]) {
    for (key, value) in plan(families, &read_ipv6()) {
        match sysctl::write(&key, value) {
            Ok(before) if before == value => debug!(key, value, "kernel parameter has the value already"),
            Ok(before) if key == RP_FILTER && before == STRICT => warn!(
                key,
                value,
                before,
                "strict reverse path filter of the node switched off: with tuneSysctlConfig false nothing is written"
            ),
            Ok(before) => info!(key, value, before, "kernel parameter written"),
            Err(error @ SysctlError::Missing { .. }) => {
                debug!(%error, "kernel parameter does not exist, skipped");
            }
            Err(error) => warn!(key, value, %error, "kernel parameter cannot be written"),
        }
    }
}

/// A node that begins to forward ignores router advertisements (`accept_ra` 1), and loses its default route when that
/// expires. So `accept_ra` is set to 2 first on NICs that accept them.
fn plan(families: &[Family], ipv6: &Ipv6) -> Vec<(String, &'static str)> {
    let mut changes = Vec::new();
    if families.contains(&Family::V6) && !ipv6.forwards {
        let key = |nic: &String| (format!("net/ipv6/conf/{nic}/accept_ra"), "2");
        changes.extend(ipv6.accept_ra.iter().map(key));
    }
    let wanted = WANTED.iter().filter(|(_, _, family)| families.contains(family));
    changes.extend(wanted.map(|(key, value, _)| ((*key).to_owned(), *value)));
    changes
}

fn read_ipv6() -> Ipv6 {
    let is = |key: &str, value: &str| sysctl::read(key).is_ok_and(|found| found == value);
    let nics = fs::read_dir(Path::new("/proc/sys/net/ipv6/conf")).into_iter().flatten().flatten();
    let accept_ra = nics
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|nic| nic != "all" && nic != "default")
        .filter(|nic| is(&format!("net/ipv6/conf/{nic}/accept_ra"), "1"))
        .collect();
    Ipv6 { forwards: is(FORWARDING_V6, "1"), accept_ra }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(families: &[Family], ipv6: &Ipv6) -> Vec<String> {
        plan(families, ipv6).into_iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn each_family_has_its_own_parameters() {
        let of_v4 = keys(&[Family::V4], &Ipv6::default());
        assert!(of_v4.iter().all(|key| key.starts_with("net/ipv4/")), "{of_v4:?}");
        assert!(of_v4.contains(&"net/ipv4/conf/all/rp_filter=0".to_owned()));
        assert_eq!(keys(&Family::ALL, &Ipv6::default()).len(), WANTED.len());
        assert_eq!(keys(&[], &Ipv6::default()), Vec::<String>::new());
    }

    #[test]
    fn router_advertisements_are_still_accepted_when_the_node_begins_to_forward() {
        let ipv6 = |forwards| Ipv6 { forwards, accept_ra: vec!["eth0".to_owned()] };
        let begins = keys(&[Family::V6], &ipv6(false));
        let place = |key: &str| begins.iter().position(|found| found == key);
        let (listen, forward) =
            (place("net/ipv6/conf/eth0/accept_ra=2"), place("net/ipv6/conf/all/forwarding=1"));
        assert!(listen.is_some() && listen < forward, "{begins:?}");
        assert!(!keys(&[Family::V6], &ipv6(true)).iter().any(|key| key.contains("accept_ra")));
    }
}
