//! Loading, and after a restart: the pods that are still there are taken back into service, the others dropped.

use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spiderpool_dataplane::{Dataplane, NicEntry};
use tracing::{error, info};

use super::attach;
use super::owner::{DataplaneError, Owner, Settings};
use crate::pod_network::{Inventory, PodRecord, Retired, StateFileError, netns, state_file};

impl Owner {
    /// Tries to load programs and maps; says so where it is asked.
    pub(super) fn load(&mut self) {
        match self.try_load() {
            Ok(()) => {
                self.failure.clear();
                self.loaded.met();
            }
            Err(error) => {
                let text = error.to_string();
                if text != self.failure {
                    error!(error = text, "eBPF dataplane cannot be loaded, trying again");
                }
                self.loaded.unmet(&text);
                self.failure = text;
            }
        }
    }

    fn try_load(&mut self) -> Result<(), DataplaneError> {
        let Settings { object, pin_dir, state, sizes } = &self.settings;
        // Not before the inventory is known, or known to be lost: whatever is written would take its place.
        let known = read(state)?;
        let mut dataplane = Dataplane::load(object, pin_dir, sizes)?;
        info!(pins = %pin_dir.display(), replaced = ?dataplane.replaced(), "eBPF dataplane loaded");
        let in_maps = dataplane.nics()?;
        let filled = dataplane.cidr_profiles()?;
        self.recover(known, &in_maps)?;
        follow_logs(&mut dataplane);
        (self.dataplane, self.filled) = (Some(dataplane), filled);
        self.look_again();
        self.retire(Retired::default());
        self.count();
        // What became known while there were no maps.
        self.renew();
        Ok(())
    }

    /// After a restart: what the maps have beyond the inventory is removed, or left alone where the inventory is
    /// lost. All pods are looked at then.
    fn recover(
        &mut self,
        known: Option<Inventory>,
        in_maps: &[(u16, NicEntry)],
    ) -> Result<(), DataplaneError> {
        let lost = known.is_none();
        self.inventory = known.unwrap_or_default();
        let ids = self.inventory.ids();
        let unknown = || in_maps.iter().filter(|(id, _)| !ids.contains(id));
        let strangers = std::mem::take(&mut self.inventory.strangers);
        let (left, gone): (Vec<_>, Vec<_>) =
            unknown().partition(|(id, _)| lost || strangers.contains_key(id));
        self.inventory.strangers = left.into_iter().map(|&(id, ref entry)| (id, entry.profile)).collect();
        let cluster_nics = gone.iter().filter(|(id, entry)| *id == entry.pod);
        self.unretired = Retired {
            pods: cluster_nics.map(|(id, _)| *id).collect(),
            nics: gone.iter().map(|(id, _)| *id).collect(),
        };
        self.unseen = self.inventory.pods().map(|pod| pod.container_id.clone()).collect();
        let (pods, dropped) = (self.unseen.len(), self.unretired.pods.len());
        info!(pods, dropped, strangers = self.inventory.strangers.len(), "inventory compared with the maps");
        self.save()
    }

    /// Takes pods that were not looked at since the restart back into service, and drops those that are gone.
    pub(super) fn look_again(&mut self) {
        let mut dropped = 0;
        for container in std::mem::take(&mut self.unseen) {
            let Some(pod) = self.inventory.pod(&container).cloned() else { continue };
            match self.serve_again(&pod) {
                Ok(Presence::Served) => {}
                Ok(Presence::Gone) => {
                    let gone = self.inventory.remove(&container);
                    self.retire(gone);
                    dropped += 1;
                }
                Ok(Presence::Hidden) => {
                    let (netns, pod) = (pod.netns.display(), &pod.pod);
                    error!(%container, %pod, %netns, "pod runs, but its network namespace is not in sight: are the host's mounts propagated to the agent?");
                    self.unseen.insert(container);
                }
                Err(error) => {
                    error!(%error, %container, pod = %pod.pod, "pod cannot be served again, trying again");
                    self.unseen.insert(container);
                }
            }
        }
        if dropped == 0 {
            return;
        }
        info!(dropped, "pods that are gone are not served any more");
        if let Err(error) = self.save() {
            error!(%error, "inventory cannot be written");
        }
    }

    fn serve_again(&mut self, pod: &PodRecord) -> Result<Presence, DataplaneError> {
        let Some(netns) = netns::open(pod)? else {
            return Ok(if netns::has_host_end(pod)? { Presence::Hidden } else { Presence::Gone });
        };
        self.put_entries(pod)?;
        if let Some(dataplane) = &self.dataplane {
            attach::attach(&netns, pod, dataplane.programs())?;
        }
        Ok(Presence::Served)
    }
}

/// Where a pod of the inventory is.
enum Presence {
    /// It runs and is served.
    Served,
    /// It runs, and cannot be reached.
    Hidden,
    Gone,
}

/// The inventory; `None` where there is none to be had. A failure to read it is not one to lose it by.
fn read(path: &Path) -> Result<Option<Inventory>, DataplaneError> {
    match state_file::read(path) {
        Ok(known) => Ok(known),
        Err(error @ StateFileError::Io { .. }) => Err(error.into()),
        Err(error) => {
            error!(%error, "inventory is lost, NICs that the maps know are left as they are");
            Ok(None)
        }
    }
}

/// Hands on what the programs say, on a thread of its own that ends with the ring buffer.
fn follow_logs(dataplane: &mut Dataplane) {
    let Some(mut logs) = dataplane.take_logs() else { return };
    let follow = move || {
        loop {
            let mut ready = [PollFd::new(logs.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => logs.flush(),
                Err(error) => return error!(%error, "log of the programs cannot be read"),
            }
        }
    };
    if let Err(error) = thread::Builder::new().name("bpf-log".to_owned()).spawn(follow) {
        error!(%error, "log of the programs is not followed");
    }
}
