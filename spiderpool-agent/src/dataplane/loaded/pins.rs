//! Puts pins back that others have removed.

use spiderpool_dataplane::LoadError;
use thiserror::Error;
use tracing::{error, warn};

use super::Loaded;
use crate::node::mount_namespace::{self, MountNamespaceError};

/// Pins cannot be put back.
#[derive(Debug, Error)]
enum RestorePinsError {
    #[error(transparent)]
    Pin(LoadError),
    #[error(transparent)]
    Namespace(MountNamespaceError),
}

impl Loaded {
    /// Pins what somebody has removed: plugins attach pinned programs. Said once while it cannot be done.
    pub(crate) fn restore_pins(&mut self) {
        let pins = self.maps.pins();
        let restored = match &self.mount_namespace {
            None => pins.restore().map_err(RestorePinsError::Pin),
            // Almost always so, and known without a thread that enters.
            Some(namespace) if mount_namespace::root(namespace).is_some_and(|root| pins.are_below(&root)) => {
                Ok(0)
            }
            Some(namespace) => mount_namespace::run_in(namespace, || pins.restore())
                .map_err(RestorePinsError::Namespace)
                .and_then(|restored| restored.map_err(RestorePinsError::Pin)),
        };
        match restored {
            Ok(0) => {}
            Ok(pins) => warn!(pins, "pins of the eBPF dataplane were gone, and are put back"),
            Err(error) if !self.lacks_pins => {
                error!(%error, "pins of the eBPF dataplane are gone and cannot be put back: pods run on, new ones cannot start");
                self.lacks_pins = true;
                return;
            }
            Err(_) => return,
        }
        self.lacks_pins = false;
    }
}
