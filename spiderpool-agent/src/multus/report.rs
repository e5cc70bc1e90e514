//! What is said of Multus: in the log and on the Node, once until it changes.

use spiderpool_core::multus_conf::Obstacle;
use spiderpool_runtime::kubernetes::ApiFailure;
use tracing::{info, warn};

use super::conf_dir::Written;
use super::error::DirError;
use crate::node_events::NodeEvents;

pub(super) struct Report {
    events: NodeEvents,
    /// The failure that was said last.
    failure: Option<String>,
    token_failure: Option<String>,
    /// How often in a row somebody has taken the configuration away.
    fights: u32,
    quiet_passes: u32,
}

/// After so many passes in which nothing happened, a fight is over.
const QUIET: u32 = 30;

impl Report {
    pub(super) fn new(events: NodeEvents) -> Self {
        Self { events, failure: None, token_failure: None, fights: 0, quiet_passes: 0 }
    }

    pub(super) fn fights(&self) -> u32 {
        self.fights
    }

    pub(super) fn token(&mut self, refreshed: Result<bool, ApiFailure>) {
        match refreshed {
            Ok(true) => self.token_failure = None,
            Ok(false) => {}
            Err(error) => {
                let error = error.to_string();
                if self.token_failure.as_ref() != Some(&error) {
                    warn!(error, "no token for Multus, trying again");
                }
                self.token_failure = Some(error);
            }
        }
    }

    pub(super) fn files(&mut self, outcome: &Result<Written, DirError>) {
        match outcome {
            Ok(written) => {
                self.failure = None;
                self.written(written);
            }
            Err(error) => self.failed(error),
        }
    }

    fn written(&mut self, written: &Written) {
        match written {
            Written::Nothing => {
                self.quiet_passes += 1;
                if self.quiet_passes > QUIET {
                    self.fights = 0;
                }
                return;
            }
            Written::Conf { default_file, preceded_by } => {
                let default_file = default_file.as_deref().unwrap_or("a NetworkAttachmentDefinition");
                info!(default_file, "Multus' configuration is written");
                if let Some(file) = preceded_by {
                    let note = format!(
                        "the container runtime takes {file} before Multus' 00-multus.conf: pods get no further NICs \
                         until it has a name that comes later"
                    );
                    self.say("MultusNotFirst", note);
                }
            }
            Written::Again => {
                self.fights += 1;
                let note = "another program has removed or replaced Multus' 00-multus.conf, or the default CNI has \
                            changed; it is written again";
                if self.fights > 2 {
                    self.say("MultusConfigReplaced", note.to_owned());
                } else {
                    info!("{note}");
                }
            }
            Written::RenamedByCilium => {
                self.fights += 1;
                let note = "Cilium has renamed Multus' 00-multus.conf to 00-multus.conf.cilium_bak; it is written again. \
                            Set cni.exclusive=false in Cilium's chart: until then pods may get no further NICs";
                self.say("MultusConfigRenamed", note.to_owned());
            }
        }
        self.quiet_passes = 0;
    }

    fn failed(&mut self, error: &DirError) {
        let text = error.to_string();
        if self.failure.as_ref() == Some(&text) {
            return;
        }
        match error {
            DirError::Obstacle(Obstacle::OtherMultus { .. }) => self.say("OtherMultus", text.clone()),
            DirError::Obstacle(Obstacle::NoDefaultNetwork { .. }) => {
                self.say("NoDefaultNetwork", text.clone());
            }
            _ => warn!(error = text, "Multus' configuration is not written yet"),
        }
        self.failure = Some(text);
    }

    fn say(&self, reason: &'static str, note: String) {
        warn!(reason, "{note}");
        self.events.multus(reason, note);
    }
}
