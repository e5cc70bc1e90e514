//! Pods of this node that virtual machines are moving to: they use addresses which pods of other nodes hold. That these have become
//! theirs, no watch tells. It is on disk, too: nothing else says what such a pod uses, and a machine may take minutes to move.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use spiderpool_api::crd::SpiderIPAddress;
use spiderpool_core::ipam::Holding;
use spiderpool_core::names::{IfName, PodIdentity, PodName, PodUid};
use tracing::warn;

use crate::announce::Announcement;
use crate::atomic_file;

/// Where they are kept.
pub(crate) fn state_path(folder: &Path) -> PathBuf {
    folder.join("migrations.json")
}

/// A pod that its virtual machine is moving to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MigrationTarget {
    pub(super) pod: PodIdentity,
    /// What it uses and does not hold yet, each address as it is to be written once it is the pod's.
    pub(super) addresses: Vec<Arc<Holding>>,
    /// What the machine has altogether, also by NICs that the pod may not have.
    pub(super) of_machine: BTreeSet<IpAddr>,
    /// The name of the machine's endpoint.
    pub(super) endpoint: PodName,
    /// Until the machine has moved, neighbors are to know the addresses of the pod that it moves from.
    pub(super) announcements: Vec<Announcement>,
}

/// All of the node, in a file.
#[derive(Debug)]
pub(super) struct MigrationTargets {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    targets: BTreeMap<PodUid, MigrationTarget>,
    /// The file's content.
    written: Vec<u8>,
    /// The file could not be read: ADDs of other NICs of these pods may have been in it.
    is_incomplete: bool,
}

impl MigrationTargets {
    /// Those that an earlier agent has left in the file. Of one that cannot be read, the pods do not tell neighbors of their addresses,
    /// and no address of their machines is taken for unused.
    pub(super) fn open(path: PathBuf) -> Self {
        let found = read(&path);
        let is_incomplete = found.is_err();
        let targets = found.unwrap_or_else(|error| {
            let path = path.display();
            warn!(%path, %error, "pods that virtual machines move to cannot be read, and are not followed");
            BTreeMap::new()
        });
        Self { path, known: Mutex::new(Known { targets, written: Vec::new(), is_incomplete }) }
    }

    /// A virtual machine with this endpoint and these addresses is moving to a pod, which uses some of them. The ADD of another
    /// NIC does not know the network of an earlier one. An error if it cannot be written down: an agent that knows of some NICs of the
    /// pod only would take the addresses of the others for unused.
    pub(super) fn insert(
        &self,
        pod: &PodIdentity,
        endpoint: &PodName,
        wanted: Vec<Holding>,
        of_machine: &BTreeSet<IpAddr>,
    ) -> Result<(), MigrationError> {
        let is_incomplete = self.with(|known| known.is_incomplete);
        let of_machine = if is_incomplete { BTreeSet::new() } else { of_machine.clone() };
        let ((), written) = self.change(|targets| {
            let target = targets.entry(pod.uid.clone()).or_insert_with(|| MigrationTarget {
                pod: pod.clone(),
                addresses: Vec::new(),
                of_machine: BTreeSet::new(),
                endpoint: endpoint.clone(),
                announcements: Vec::new(),
            });
            target.of_machine = of_machine;
            for wanted in wanted {
                target.insert(wanted);
            }
        });
        written
    }

    /// What is to be announced when the machine has moved: of another NIC, or of the same one in a newer sandbox.
    pub(super) fn announce_later(&self, pod: &PodUid, announcement: Announcement) {
        self.change_or_warn(|targets| {
            let Some(target) = targets.get_mut(pod) else { return };
            target.announcements.retain(|known| !known.is_of_same_nic(&announcement));
            target.announcements.push(announcement);
        });
    }

    /// What is to be announced of NICs whose addresses are all the pod's.
    pub(super) fn due_announcements(&self, pod: &PodUid) -> Vec<Announcement> {
        let due = |target: &MigrationTarget| target.due_announcements().cloned().collect();
        self.with(|known| known.targets.get(pod).map(due).unwrap_or_default())
    }

    /// That has been done.
    pub(super) fn announced(&self, pod: &PodUid, done: &[Announcement]) {
        self.change_or_warn(|targets| {
            let Some(target) = targets.get_mut(pod) else { return };
            target.announcements.retain(|known| !done.contains(known));
        });
    }

    /// The pod holds an address that it uses.
    pub(super) fn remove(&self, pod: &PodUid, address: IpAddr) {
        self.change_or_warn(|targets| {
            let Some(target) = targets.get_mut(pod) else { return };
            target.addresses.retain(|known| known.ip() != address);
        });
    }

    /// What has become of an address of the machine is known.
    pub(super) fn settle(&self, pod: &PodUid, address: IpAddr) {
        self.change_or_warn(|targets| {
            let Some(target) = targets.get_mut(pod) else { return };
            target.of_machine.remove(&address);
        });
    }

    /// What is known of a pod.
    pub(super) fn get(&self, pod: &PodUid) -> Option<MigrationTarget> {
        self.with(|known| known.targets.get(pod).cloned())
    }

    /// The machine is not moving to the pod any more.
    pub(super) fn forget(&self, pod: &PodUid) {
        self.change_or_warn(|targets| drop(targets.remove(pod)));
    }

    /// The pods.
    pub(super) fn pods(&self) -> Vec<PodIdentity> {
        self.with(|known| known.targets.values().map(|target| target.pod.clone()).collect())
    }

    fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What is not written now is with the next change. Until then the file says more than is so, which costs an announcement or two.
    fn change_or_warn(&self, f: impl FnOnce(&mut BTreeMap<PodUid, MigrationTarget>)) {
        if let ((), Err(error)) = self.change(f) {
            warn!(%error, "trying again with the next change");
        }
    }

    /// Writes the file if that changes it. It is small, and written when a machine begins to move and when it has moved.
    fn change<T>(
        &self,
        f: impl FnOnce(&mut BTreeMap<PodUid, MigrationTarget>) -> T,
    ) -> (T, Result<(), MigrationError>) {
        self.with(|Known { targets, written, .. }| {
            let outcome = f(targets);
            let stored = serde_json::to_vec(&targets.values().map(Stored::from).collect::<Vec<_>>());
            let stored = stored.unwrap_or_default();
            if stored == *written {
                return (outcome, Ok(()));
            }
            let outcome_of_write = write(&self.path, &stored);
            if outcome_of_write.is_ok() {
                *written = stored;
            }
            let failed = |source| MigrationError { path: self.path.clone(), source };
            (outcome, outcome_of_write.map_err(failed))
        })
    }
}

/// The file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("failed to write {}, which says what pods use that virtual machines move to: {source}", path.display())]
pub struct MigrationError {
    path: PathBuf,
    source: io::Error,
}

impl MigrationTarget {
    fn due_announcements(&self) -> impl Iterator<Item = &Announcement> {
        let waits = |nic: &IfName| self.addresses.iter().any(|address| address.nic == *nic);
        self.announcements.iter().filter(move |announcement| !waits(announcement.nic()))
    }

    fn insert(&mut self, mut wanted: Holding) {
        let earlier = self.addresses.iter().position(|known| known.address == wanted.address);
        if let Some(earlier) = earlier.map(|place| self.addresses.swap_remove(place))
            && earlier.container_id == wanted.container_id
        {
            wanted.network = wanted.network.or_else(|| earlier.network.clone());
        }
        self.addresses.push(Arc::new(wanted));
    }
}

/// One as it is in the file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(flatten)]
    pod: PodName,
    #[serde(rename = "podUID")]
    uid: PodUid,
    addresses: Vec<SpiderIPAddress>,
    of_machine: BTreeSet<IpAddr>,
    endpoint: String,
    announcements: Vec<Announcement>,
}

impl From<&MigrationTarget> for Stored {
    fn from(target: &MigrationTarget) -> Self {
        Self {
            pod: target.pod.name.clone(),
            uid: target.pod.uid.clone(),
            addresses: target.addresses.iter().map(|wanted| SpiderIPAddress::from(&**wanted)).collect(),
            of_machine: target.of_machine.clone(),
            endpoint: target.endpoint.name().to_owned(),
            announcements: target.announcements.clone(),
        }
    }
}

impl TryFrom<Stored> for MigrationTarget {
    type Error = io::Error;

    fn try_from(stored: Stored) -> io::Result<Self> {
        let addresses = stored.addresses.iter().map(|object| Holding::try_from(object).map(Arc::new));
        let addresses = addresses.collect::<Result<Vec<_>, _>>().map_err(io::Error::other)?;
        let endpoint = stored.pod.sibling(stored.endpoint).map_err(io::Error::other)?;
        Ok(Self {
            pod: PodIdentity { name: stored.pod, uid: stored.uid },
            addresses,
            of_machine: stored.of_machine,
            endpoint,
            announcements: stored.announcements,
        })
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<PodUid, MigrationTarget>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        bytes => bytes?,
    };
    let stored: Vec<Stored> = serde_json::from_slice(&bytes)?;
    let targets = stored.into_iter().map(MigrationTarget::try_from);
    targets.map(|target| target.map(|target| (target.pod.uid.clone(), target))).collect()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    atomic_file::write(path, content, 0o600)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_api::agent::ipam::{IpConfig, IpamAddArgs};
    use spiderpool_core::ipam::address_name::object_name;

    use super::*;

    fn wanted(address: &str, network: &str) -> Holding {
        let net: ipnet::IpNet = address.parse().unwrap();
        let spec = json!({
            "address": address, "pool": "p", "node": "n2", "interface": "net1", "containerID": "c", "network": network,
            "podNamespace": "ns", "podName": "virt-launcher-db-x", "podUID": "u", "ownerKind": "VirtualMachineInstance",
            "ownerName": "db", "virtualMachine": "db", "terminationGracePeriodSeconds": 30, "state": "bound",
        });
        let object = json!({"metadata": {"name": object_name(net.addr())}, "spec": spec});
        Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    }

    fn announcement(pod: &PodIdentity) -> Announcement {
        let uid = Some(pod.uid.clone());
        let args = IpamAddArgs::new("c".parse().unwrap(), "net1".parse().unwrap(), pod.name.clone(), uid);
        let args = IpamAddArgs { net_namespace: "/run/netns/x".into(), ..args };
        let ip = IpConfig { nic: "net1".into(), address: "10.6.0.9/16".into(), ..IpConfig::default() };
        Announcement::new(&args, &[ip]).unwrap()
    }

    #[test]
    fn the_next_agent_knows_what_pods_use_that_machines_are_moving_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = state_path(&folder.path().join("run"));
        let targets = MigrationTargets::open(path.clone());
        let first = wanted("10.6.0.9/16", "macvlan");
        let (pod, endpoint) = (first.owner.pod.clone(), first.owner.endpoint_name());
        let of_machine: BTreeSet<IpAddr> =
            ["10.6.0.9", "10.7.0.9"].iter().map(|ip| ip.parse().unwrap()).collect();
        targets.insert(&pod, &endpoint, vec![first.clone()], &of_machine).unwrap();
        targets.announce_later(&pod.uid, announcement(&pod));
        let next = MigrationTargets::open(path.clone());
        assert_eq!(next.pods(), std::slice::from_ref(&pod));
        let known = next.get(&pod.uid).unwrap();
        assert_eq!(known, targets.get(&pod.uid).unwrap());
        assert_eq!((&*known.addresses[0], &known.of_machine), (&first, &of_machine));
        assert_eq!(next.due_announcements(&pod.uid), [], "the address is another pod's");
        next.remove(&pod.uid, first.ip());
        // The agent may end before it has announced anything.
        let next = MigrationTargets::open(path.clone());
        let due = next.due_announcements(&pod.uid);
        assert_eq!(due, [announcement(&pod)]);
        next.announced(&pod.uid, &due);
        next.settle(&pod.uid, first.ip());

        let last = MigrationTargets::open(path.clone());
        let known = last.get(&pod.uid).unwrap();
        assert_eq!((known.addresses.len(), known.of_machine.len(), known.announcements.len()), (0, 1, 0));
        last.forget(&pod.uid);
        assert_eq!(MigrationTargets::open(path.clone()).pods(), []);
    }

    /// The address of a NIC whose ADD it does not know of would be freed while that NIC uses it.
    #[test]
    fn an_agent_that_cannot_read_the_file_knows_nothing_to_be_unused() {
        let folder = tempfile::tempdir().unwrap();
        let path = state_path(folder.path());
        fs::write(&path, "{").unwrap();
        let targets = MigrationTargets::open(path.clone());
        assert_eq!(targets.pods(), []);
        let first = wanted("10.6.0.9/16", "macvlan");
        let (pod, endpoint) = (first.owner.pod.clone(), first.owner.endpoint_name());
        let of_machine = BTreeSet::from([first.ip(), "10.7.0.9".parse().unwrap()]);
        targets.insert(&pod, &endpoint, vec![first.clone()], &of_machine).unwrap();
        assert_eq!(targets.get(&pod.uid).unwrap().of_machine, BTreeSet::new());
        assert_eq!(MigrationTargets::open(path).get(&pod.uid).unwrap().of_machine, BTreeSet::new());
    }

    #[test]
    fn what_cannot_be_written_down_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let targets = MigrationTargets::open(state_path(folder.path()));
        let targets = MigrationTargets { path: state_path(&file), ..targets };
        let first = wanted("10.6.0.9/16", "macvlan");
        let (pod, endpoint) = (first.owner.pod.clone(), first.owner.endpoint_name());
        let error = targets.insert(&pod, &endpoint, vec![first], &BTreeSet::new()).unwrap_err();
        assert!(error.to_string().contains("file/migrations.json"), "{error}");
    }

    #[test]
    fn an_add_of_another_nic_keeps_the_network_of_the_first() {
        let folder = tempfile::tempdir().unwrap();
        let targets = MigrationTargets::open(state_path(folder.path()));
        let first = wanted("10.6.0.9/16", "macvlan");
        let (pod, endpoint) = (first.owner.pod.clone(), first.owner.endpoint_name());
        targets.insert(&pod, &endpoint, vec![first], &BTreeSet::new()).unwrap();
        targets.insert(&pod, &endpoint, vec![wanted("10.6.0.9/16", "")], &BTreeSet::new()).unwrap();
        let known = targets.get(&pod.uid).unwrap();
        assert_eq!((known.addresses.len(), known.addresses[0].network.as_deref()), (1, Some("macvlan")));
    }
}
