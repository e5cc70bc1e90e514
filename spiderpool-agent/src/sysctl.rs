//! Kernel parameters of the node, where the configuration wants them (`tuneSysctlConfig`).

use spiderpool_core::ip::Family;
use spiderpool_net::sysctl;
use tracing::{debug, warn};

/// Key below /proc/sys, value, and the family that it is for.
const WANTED: [(&str, &str, Family); 6] = [
    ("net/ipv4/neigh/default/gc_thresh3", "28160", Family::V4),
    ("net/ipv6/neigh/default/gc_thresh3", "28160", Family::V6),
    ("net/ipv4/conf/all/arp_notify", "1", Family::V4),
    ("net/ipv4/conf/all/forwarding", "1", Family::V4),
    ("net/ipv6/conf/all/forwarding", "1", Family::V6),
    ("net/ipv4/conf/all/rp_filter", "0", Family::V4),
];

/// Writes what is wanted for the families; a parameter that this kernel does not have is none to worry about.
pub(crate) fn tune(families: &[Family]) {
    for (key, value, family) in WANTED {
        if !families.contains(&family) {
            continue;
        }
        match sysctl::write(key, value) {
            Ok(_) => debug!(key, value, "kernel parameter written"),
            Err(error) => warn!(key, value, %error, "kernel parameter cannot be written"),
        }
    }
}
