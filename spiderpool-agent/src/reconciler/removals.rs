//! Who waits until what they have taken out has left the maps and the disk.

use tokio::sync::oneshot;

use super::error::RegistrationError;

/// Takes the result of one removal.
pub(super) type RemovalAnswer = oneshot::Sender<Result<(), RegistrationError>>;

/// Who waits until nothing is left of what was taken out.
#[derive(Debug, Default)]
pub(super) struct Removals {
    /// Whether anything has been taken out since the last pass over the maps has begun.
    pub(super) wanted: bool,
    /// Those of the next pass.
    pub(super) next: Vec<RemovalAnswer>,
    /// Those of the pass that goes on.
    pub(super) current: Vec<RemovalAnswer>,
}

impl Removals {
    /// Something is to be removed from the maps.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }
}
