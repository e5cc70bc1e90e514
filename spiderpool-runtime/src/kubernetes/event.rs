//! Events, which nobody's work may wait for.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, Recorder};
use spiderpool_core::error_list::cut;
use tracing::warn;

use super::limited;

/// The API server refuses Events with longer notes (Kubernetes, pkg/apis/core/validation/events.go): bytes.
const MAX_NOTE: usize = 1024;

/// Writes an Event, within the time limit of a request; a note that is too long is cut. Failing to is logged only.
#[expect(clippy::disallowed_methods, reason = "within the time limit")]
pub async fn publish_event(recorder: &Recorder, event: &Event, regarding: &ObjectReference) {
    let event = Event {
        type_: event.type_,
        reason: event.reason.clone(),
        note: event.note.clone().map(|note| cut(note, MAX_NOTE)),
        action: event.action.clone(),
        secondary: event.secondary.clone(),
    };
    if let Err(error) = limited(recorder.publish(&event, regarding)).await {
        let (kind, name) = (regarding.kind.as_deref(), regarding.name.as_deref());
        warn!(%error, reason = event.reason, kind, name, "Event not written");
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::events::{EventType, Reporter};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_event_that_is_not_answered_holds_nobody_up_for_longer_than_a_request() {
        let hangs = tower::service_fn(|_: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::io::Error>>()
        });
        let reporter = Reporter { controller: "test".to_owned(), instance: None };
        let recorder = Recorder::new(Client::new(hangs, "default"), reporter);
        let event = Event {
            type_: EventType::Warning,
            reason: "Test".to_owned(),
            note: None,
            action: "Test".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference::default();
        let published = publish_event(&recorder, &event, &regarding);
        tokio::time::timeout(super::super::REQUEST_TIMEOUT * 2, published).await.unwrap();
    }
}
