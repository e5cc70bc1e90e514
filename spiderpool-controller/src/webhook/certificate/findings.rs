//! What is wrong with the webhooks' configurations for longer than an installation or a renewal takes: each is said once.

use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// How long it may last. `helm` makes the configurations last, and takes them away first.
const TOLERATED: Duration = Duration::from_mins(1);

/// What is wrong with one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum Finding {
    #[error("there is none: objects are neither completed nor checked. helm upgrade makes it again")]
    Missing,
    #[error(
        "its caBundle is not ca.crt of the Secret: the API server may not trust the controllers. helm upgrade, or the CA \
         injector of cert-manager, writes it"
    )]
    OtherAuthority,
}

impl Finding {
    /// The reason of the Event. Events of one reason are one Event, with the words of the first.
    pub(super) fn reason(self, kind: &str) -> String {
        match self {
            Self::Missing => format!("No{kind}"),
            Self::OtherAuthority => format!("UntrustedBy{kind}"),
        }
    }
}

/// One configuration.
#[derive(Debug, Default)]
pub(super) struct Findings {
    lasting: Option<(Finding, Instant)>,
    is_reported: bool,
}

impl Findings {
    /// Takes what is found now; what is to be said of it.
    pub(super) fn observe(&mut self, found: Option<Finding>, now: Instant) -> Option<Finding> {
        match (found, self.lasting) {
            (Some(found), Some((before, since))) if found == before => {
                let is_due = !self.is_reported && now.duration_since(since) >= TOLERATED;
                self.is_reported |= is_due;
                is_due.then_some(found)
            }
            (found, _) => {
                *self = Self { lasting: found.map(|found| (found, now)), is_reported: false };
                None
            }
        }
    }

    /// When it is looked again, if something is wrong that is not said yet.
    pub(super) fn next_look(&self) -> Option<Duration> {
        (self.lasting.is_some() && !self.is_reported).then_some(TOLERATED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lasts_is_said_once_and_again_after_it_was_right() {
        let mut findings = Findings::default();
        let begin = Instant::now();
        let mut at = |seconds, found| findings.observe(found, begin + Duration::from_secs(seconds));
        let missing = Some(Finding::Missing);
        assert_eq!(at(0, missing), None);
        assert_eq!(at(59, missing), None);
        assert_eq!(at(60, missing), missing);
        assert_eq!(at(200, missing), None);
        assert_eq!(at(201, None), None);
        assert_eq!(at(202, missing), None);
        assert_eq!(at(210, Some(Finding::OtherAuthority)), None);
        assert_eq!(at(270, Some(Finding::OtherAuthority)), Some(Finding::OtherAuthority));
        assert_eq!(findings.next_look(), None);
    }
}
