//! The pod's network namespace, named so that the agent finds it.

use std::os::fd::{AsFd as _, AsRawFd as _};

use spiderpool_api::agent::{NetnsIdentity, OpenNetns};
use spiderpool_net::netns::NetNs;
use tracing::debug;

/// The namespace by its identity and by this process's descriptor.
pub(crate) fn open_netns(netns: &NetNs) -> Option<OpenNetns> {
    let id =
        netns.id().inspect_err(|error| debug!(%error, "the namespace is named by its path alone")).ok()?;
    Some(OpenNetns {
        identity: NetnsIdentity { dev: id.dev, inode: id.inode },
        descriptor: format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()),
    })
}
