//! Finding a pod's network namespace: when it is registered, and again later.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use spiderpool_api::agent::dataplane::{Nic, NicRole};
use spiderpool_api::agent::{NetnsIdentity, OpenNetns};
use spiderpool_core::net::Link;
use spiderpool_net::block_on;
use spiderpool_net::executor::{ApplyError, StepError};
use spiderpool_net::netlink::{Netlink, NetlinkError};
use spiderpool_net::netns::{NetNs, NetNsError};
use thiserror::Error;

use super::record::{NicRecord, PodRecord};
use crate::processes;

/// A pod's network namespace cannot be read or changed.
#[derive(Debug, Error)]
pub enum NamespaceError {
    /// It cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetNsError),
    /// The kernel refused.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel refused a step of a plan.
    #[error(transparent)]
    Apply(#[from] ApplyError),
}

/// What is read of a pod at once. Who has `NET_ADMIN` in it makes as many routes, addresses and filters as it likes.
pub(crate) const LARGEST_DUMP: usize = 4096;

impl NamespaceError {
    /// The pod has more than may be read.
    pub(crate) fn is_too_large(&self) -> bool {
        match self {
            Self::Netlink(error) => matches!(error, NetlinkError::TooMany { .. }),
            Self::Apply(ApplyError { source: StepError::Netlink(error), .. }) => {
                matches!(error, NetlinkError::TooMany { .. })
            }
            Self::Netns(_) | Self::Apply(_) => false,
        }
    }
}

/// A connection to a pod's namespace that reads no more than [`LARGEST_DUMP`].
pub(crate) fn connect(netns: &NetNs) -> Result<Netlink, NetlinkError> {
    let mut netlink = netns.netlink()?;
    netlink.limit_dumps(LARGEST_DUMP);
    Ok(netlink)
}

/// The identity of the namespace at a path.
pub(crate) fn identity(netns: &NetNs) -> Result<NetnsIdentity, NetNsError> {
    let id = netns.id()?;
    Ok(NetnsIdentity { dev: id.dev, inode: id.inode })
}

/// The namespace that a plugin names. Its path need not be the agent's: the plugin runs in the node's mount and PID
/// namespaces. A path is never believed where the plugin has said which namespace it means.
pub(crate) fn of_request(path: &Path, open: Option<&OpenNetns>) -> Result<NetNs, NetNsError> {
    match open {
        Some(open) => locate(path, open.identity, Some(Path::new(&open.descriptor))),
        None => NetNs::open(path),
    }
}

/// The namespace of that identity: by its path, by a descriptor of who has it open, or by a process that is in it.
fn locate(path: &Path, wanted: NetnsIdentity, descriptor: Option<&Path>) -> Result<NetNs, NetNsError> {
    let is_wanted = |netns: &NetNs| identity(netns).is_ok_and(|found| found == wanted);
    let by_path = NetNs::open(path);
    if by_path.as_ref().is_ok_and(is_wanted) {
        return by_path;
    }
    let mut others = descriptor.map(Path::to_path_buf).into_iter().chain(namespaces_of_processes());
    let found = others.find_map(|other| {
        let metadata = fs::metadata(&other).ok()?;
        let is_same = metadata.dev() == wanted.dev && metadata.ino() == wanted.inode;
        // It may have become another one meanwhile.
        is_same.then(|| NetNs::open(&other).ok().filter(is_wanted)).flatten()
    });
    found.ok_or_else(|| NetNsError::Unreachable { path: path.to_path_buf(), inode: wanted.inode })
}

/// Of each process that can be seen. Reading them needs `SYS_PTRACE`, because containers have other capabilities.
fn namespaces_of_processes() -> impl Iterator<Item = PathBuf> {
    processes::folders().into_iter().flatten().map(|folder| folder.join("ns/net"))
}

/// The pod's namespace, if it is still the one that was registered. Path and inode may both have come again for a
/// later sandbox: the NIC by which a sandbox is known identifies it.
pub(crate) fn open(pod: &PodRecord) -> Result<Option<NetNs>, NamespaceError> {
    open_by(pod, pod.nic(NicRole::NodeLink).or_else(|| pod.first_nic()))
}

/// The pod's namespace without its node link, by which it is known: the first NIC says whose it is.
pub(crate) fn open_by_first_nic(pod: &PodRecord) -> Result<Option<NetNs>, NamespaceError> {
    open_by(pod, pod.first_nic())
}

fn open_by(pod: &PodRecord, known: Option<&NicRecord>) -> Result<Option<NetNs>, NamespaceError> {
    let netns = match locate(&pod.netns, pod.netns_identity, None) {
        Ok(netns) => netns,
        Err(NetNsError::Unreachable { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(Nic { name, ifindex, mac, .. }) = known.map(|record| &record.nic) else { return Ok(None) };
    let link = block_on(async { netns.netlink()?.link_by_name(name).await })?;
    Ok(link.is_some_and(|link| link.index == *ifindex && link.mac == Some(*mac)).then_some(netns))
}

/// Where a pod of the inventory is.
pub(crate) enum Presence {
    /// It runs, in this namespace.
    Here(NetNs),
    /// It runs, and its namespace cannot be reached.
    Hidden,
    /// Its namespace has ended.
    Gone,
}

/// Looks for a pod's namespace.
pub(crate) fn presence(pod: &PodRecord) -> Result<Presence, NamespaceError> {
    if let Some(netns) = open(pod)? {
        return Ok(Presence::Here(netns));
    }
    if has_host_end(pod)? {
        return Ok(Presence::Hidden);
    }
    // Somebody may have deleted the node link of a pod that runs: its other NICs have programs with ids that must stay its own.
    Ok(open_by_first_nic(pod)?.map_or(Presence::Gone, Presence::Here))
}

/// Whether the node's end of the pod's node link is there, which ends with the pod's namespace.
fn has_host_end(pod: &PodRecord) -> Result<bool, NamespaceError> {
    Ok(block_on(async { host_end(&mut Netlink::open()?, pod).await })?.is_some())
}

/// The node's end of a pod's node link, if it is there. `node` is a connection to the node's namespace.
pub(crate) async fn host_end(node: &mut Netlink, pod: &PodRecord) -> Result<Option<Link>, NetlinkError> {
    let Ok(ends) = pod.node_link() else { return Ok(None) };
    Ok(node.link_by_name(&ends.host).await?.filter(|link| link.mac == Some(ends.host_mac)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsFd as _, AsRawFd as _};
    use std::process::{Child, Command};

    use super::*;

    /// A process in a network namespace of its own, as a sandbox has one.
    struct Sandbox(Child);

    impl Sandbox {
        fn start() -> Self {
            let mut child = Command::new("unshare").args(["--net", "sleep", "infinity"]).spawn().unwrap();
            let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
            let path = format!("/proc/{}/ns/net", child.id());
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while fs::metadata(&path).unwrap().ino() == own {
                assert!(std::time::Instant::now() < deadline && child.try_wait().unwrap().is_none());
                std::thread::yield_now();
            }
            Self(child)
        }

        fn netns(&self) -> NetNs {
            NetNs::open(format!("/proc/{}/ns/net", self.0.id())).unwrap()
        }
    }

    impl Drop for Sandbox {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn needs_root() -> bool {
        let is_root = nix::unistd::geteuid().is_root();
        if !is_root {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("skipped: needs root");
        }
        is_root
    }

    /// No pod started on nodes whose runtime keeps namespaces elsewhere than in /var/run/netns.
    #[test]
    fn a_namespace_whose_path_is_not_the_agents_is_found_by_the_plugins_descriptor_and_later_by_its_processes()
     {
        if !needs_root() {
            return;
        }
        let hidden = Path::new("/run/not-mounted-here/netns/a");
        let created = NetNs::create().unwrap();
        let wanted = identity(&created).unwrap();
        let descriptor = format!("/proc/{}/fd/{}", std::process::id(), created.as_fd().as_raw_fd());
        let open = OpenNetns { identity: wanted, descriptor };
        assert_eq!(identity(&of_request(hidden, Some(&open)).unwrap()).unwrap(), wanted);
        let sandbox = Sandbox::start();
        let wanted = identity(&sandbox.netns()).unwrap();
        assert_eq!(identity(&locate(hidden, wanted, None).unwrap()).unwrap(), wanted);
        drop(sandbox);
        let error = locate(hidden, wanted, None).unwrap_err();
        assert!(matches!(error, NetNsError::Unreachable { inode, .. } if inode == wanted.inode), "{error}");
    }

    /// `/proc/PID/ns/net` of another PID namespace is another process's: its pod would get the programs and routes.
    #[test]
    fn a_path_that_leads_to_another_namespace_is_not_believed() {
        if !needs_root() {
            return;
        }
        let (meant, other) = (NetNs::create().unwrap(), Sandbox::start());
        let identity_of = |netns: &NetNs| identity(netns).unwrap();
        let descriptor =
            |netns: &NetNs| format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd());
        let path = PathBuf::from(format!("/proc/{}/ns/net", other.0.id()));
        let open = OpenNetns { identity: identity_of(&meant), descriptor: descriptor(&meant) };
        assert_eq!(identity_of(&of_request(&path, Some(&open)).unwrap()), identity_of(&meant));
        let theirs = other.netns();
        let stale = OpenNetns { descriptor: descriptor(&theirs), ..open };
        let error = of_request(&path, Some(&stale)).unwrap_err();
        assert!(matches!(error, NetNsError::Unreachable { .. }), "{error}");
        assert!(of_request(&path, None).is_ok(), "an older plugin names the path alone");
    }
}
