//! Loading, and after a restart: the pods that are still there are taken back into service, the others dropped.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::thread;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use spiderpool_dataplane::{Dataplane, LoadError, Sizes};
use tracing::{error, info};

use super::attach;
use super::inventory::{PodRecord, Retired};
use super::owner::{DataplaneError, Owner, Settings};
use super::state_file;

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

    fn try_load(&mut self) -> Result<(), LoadError> {
        let Settings { object, pin_dir, .. } = &self.settings;
        let mut dataplane = Dataplane::load(object, pin_dir, &Sizes::default())?;
        info!(pins = %pin_dir.display(), replaced = ?dataplane.replaced(), "eBPF dataplane loaded");
        follow_logs(&mut dataplane);
        self.dataplane = Some(dataplane);
        self.recover();
        Ok(())
    }

    /// After a restart: takes the pods that are still there back into service, and drops the others.
    fn recover(&mut self) {
        let known = match state_file::read(&self.settings.state) {
            Ok(known) => known,
            Err(error) => {
                error!(%error, "inventory is lost, NICs that the maps know are left as they are");
                None
            }
        };
        let lost = known.is_none();
        self.inventory = known.unwrap_or_default();
        let in_maps = self.ids_in_maps();
        if lost {
            self.strangers = in_maps;
            return;
        }
        let mut retired =
            Retired { nics: in_maps.difference(&self.inventory.ids()).copied().collect(), pods: vec![] };
        let pods: Vec<PodRecord> = self.inventory.pods().cloned().collect();
        for pod in &pods {
            match self.serve_again(pod) {
                Ok(true) => {}
                Ok(false) => {
                    let gone = self.inventory.remove(&pod.container_id);
                    retired.nics.extend(gone.nics);
                    retired.pods.extend(gone.pods);
                }
                Err(error) => {
                    error!(%error, container = pod.container_id, pod = pod.pod_name, "pod cannot be served again");
                }
            }
        }
        info!(pods = pods.len(), dropped = retired.pods.len(), "inventory compared with the kernel");
        let outcome = self.retire(&retired).and_then(|()| self.save());
        if let Err(error) = outcome {
            error!(%error, "what is gone cannot be removed");
        }
        // What was learned before the programs could be loaded.
        self.renew();
        self.count();
    }

    fn ids_in_maps(&self) -> BTreeSet<u16> {
        let nics = self.dataplane.as_ref().map(Dataplane::nics);
        match nics {
            Some(Ok(nics)) => nics.into_iter().map(|(id, _)| id).collect(),
            Some(Err(error)) => {
                error!(%error, "map nics cannot be listed");
                BTreeSet::new()
            }
            None => BTreeSet::new(),
        }
    }

    /// `false`: its namespace is gone.
    fn serve_again(&mut self, pod: &PodRecord) -> Result<bool, DataplaneError> {
        let Some(netns) = attach::open(pod)? else { return Ok(false) };
        self.put_entries(pod)?;
        if let Some(dataplane) = &self.dataplane {
            attach::attach(&netns, pod, dataplane.programs())?;
        }
        Ok(true)
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
