//! Says what is wrong with the certificate.

use kube::runtime::events::{Event, EventType, Recorder};
use spiderpool_runtime::kubernetes::publish_event;
use tracing::warn;

use super::fault::CertificateFault;
use super::settings::CertificateSettings;

/// Where it is said: in the log, and in an Event on the Secret.
pub(crate) struct CertificateReport {
    pub(crate) recorder: Recorder,
}

impl CertificateReport {
    pub(super) async fn publish(&self, settings: &CertificateSettings, fault: &CertificateFault) {
        let note = settings.describe(fault);
        warn!(%note, "webhooks cannot be called");
        let event = Event {
            type_: EventType::Warning,
            reason: fault.reason().to_owned(),
            note: Some(note.chars().take(1000).collect()),
            action: "Serve".to_owned(),
            secondary: None,
        };
        publish_event(&self.recorder, &event, &settings.secret_reference()).await;
    }
}
