//! What is said of Multus: in the log and on the Node, once until it changes.

use spiderpool_core::multus_conf::Obstacle;
use spiderpool_runtime::kubernetes::ApiFailure;
use tracing::{info, warn};

use super::conf_dir::Written;
use super::error::DirError;
use super::token::Refreshed;
use crate::node_events::NodeEvents;

pub(super) struct Report {
    events: NodeEvents,
    files: Failure,
    token: Failure,
    /// How often in a row somebody has taken the configuration away.
    fights: u32,
    quiet_passes: u32,
}

/// After so many passes in which nothing happened, a fight is over.
const QUIET: u32 = 30;
/// So often in a row something fails before the Node gets an Event: files are written, and programs put back, meanwhile.
const LASTING: u32 = 5;

/// What fails at the moment.
#[derive(Debug, Default)]
struct Failure {
    text: String,
    times: u32,
}

impl Failure {
    /// How often in a row this has failed.
    fn again(&mut self, text: &str) -> u32 {
        if self.text != text {
            *self = Self { text: text.to_owned(), times: 0 };
        }
        self.times += 1;
        self.times
    }

    fn over(&mut self) {
        *self = Self::default();
    }
}

impl Report {
    pub(super) fn new(events: NodeEvents) -> Self {
        Self { events, files: Failure::default(), token: Failure::default(), fights: 0, quiet_passes: 0 }
    }

    pub(super) fn fights(&self) -> u32 {
        self.fights
    }

    pub(super) fn token(&mut self, refreshed: &Result<Refreshed, ApiFailure>) {
        let (text, is_retryable) = match refreshed {
            Ok(Refreshed::NotDue) => return,
            Ok(Refreshed::Good | Refreshed::New) => return self.token.over(),
            Ok(Refreshed::Empty) => ("the API server's answer has none".to_owned(), true),
            Err(error) => (error.to_string(), error.is_retryable()),
        };
        if self.token.again(&text) > 1 {
            return;
        }
        if is_retryable {
            warn!(error = text, "no token for Multus, or it cannot be checked, trying again");
        } else {
            let note = format!(
                "Multus gets no token for the API server ({text}): with the one that it has, pods may not start. `helm \
                 upgrade` makes its service account and rights again"
            );
            self.say("MultusNoAccess", note);
        }
    }

    pub(super) fn files(&mut self, outcome: &Result<Written, DirError>) {
        match outcome {
            Ok(written) => {
                self.files.over();
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
        let times = self.files.again(&text);
        let after = match error {
            DirError::Obstacle(Obstacle::OtherMultus { .. } | Obstacle::NoDefaultNetwork { .. }) => 1,
            _ => LASTING,
        };
        if times == after {
            self.say(error.reason(), text);
        } else if times == 1 {
            warn!(error = text, "Multus' configuration is not written yet");
        }
    }

    fn say(&self, reason: &'static str, note: String) {
        warn!(reason, "{note}");
        self.events.multus(reason, note);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were logged, where nobody looks for why a pod has no further NICs.
    #[test]
    fn what_lasts_is_said_on_the_node_once_and_again_after_it_was_over() {
        let (events, mut said) = NodeEvents::new();
        let mut report = Report::new(events);
        let unreadable = || Obstacle::Unreadable { file: "10-a.conf".to_owned(), why: "half".to_owned() };
        let errors: [&dyn Fn() -> DirError; 3] =
            [&|| unreadable().into(), &|| DirError::NoProgram("/opt/cni/bin/multus".into()), &|| {
                DirError::NoAccess
            }];
        for (error, reason) in
            errors.into_iter().zip(["DefaultNetworkUnreadable", "MultusProgramMissing", "MultusNoAccess"])
        {
            (1..LASTING).for_each(|_| report.files(&Err(error())));
            assert!(said.is_empty(), "{reason}");
            (0..2 * LASTING).for_each(|_| report.files(&Err(error())));
            assert_eq!(said.len(), 1, "{reason}");
            assert!(format!("{:?}", said.try_recv()).contains(reason), "{reason}");
            report.files(&Ok(Written::Nothing));
        }
    }
}
