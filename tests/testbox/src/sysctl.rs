//! Sysctls of the network, as `path=value` below `/proc/sys/net`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

/// What holds in every machine: it forwards, new links are usable at once, and anybody may ping.
pub const MACHINE: &[&str] = &[
    "ipv4/ip_forward=1",
    "ipv6/conf/all/forwarding=1",
    "ipv4/conf/all/rp_filter=0",
    "ipv4/conf/default/rp_filter=0",
    "ipv6/conf/all/accept_dad=0",
    "ipv6/conf/default/accept_dad=0",
    "ipv6/conf/default/accept_ra=0",
    "ipv4/ping_group_range=0 0",
];

/// Sets them in this network namespace.
pub fn write(settings: &[impl AsRef<str>]) -> Result<()> {
    for setting in settings.iter().map(AsRef::as_ref) {
        let (path, value) = setting.split_once('=').with_context(|| format!("no value in {setting}"))?;
        fs::write(Path::new("/proc/sys/net").join(path), value)
            .with_context(|| format!("sysctl {setting}"))?;
    }
    Ok(())
}
