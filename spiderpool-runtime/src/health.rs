//! Conditions that the parts of a process set, served as the kubelet's startup, readiness and liveness probes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};

/// Which probes a condition counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Must have held once, and must hold for the process to be ready.
    Startup,
    /// Must hold for the process to be ready; may come and go.
    Readiness,
    /// Only a restart helps if it does not hold; also counts for readiness.
    Liveness,
}

#[derive(Debug)]
struct ConditionState {
    scope: Scope,
    /// Why it does not hold.
    missing: Option<String>,
    /// What is to be said of it while it holds.
    note: Option<String>,
    held_once: bool,
}

/// All conditions of the process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, ConditionState>>>);

/// One condition, set by the part of the process that it is about.
#[derive(Debug, Clone)]
pub struct Condition {
    health: Health,
    name: &'static str,
}

impl Health {
    /// A new condition that does not hold yet. The name is unique in the process.
    pub fn condition(&self, name: &'static str, scope: Scope) -> Condition {
        let state =
            ConditionState { scope, missing: Some("not yet".to_owned()), note: None, held_once: false };
        self.with(|conditions| conditions.insert(name, state));
        Condition { health: self.clone(), name }
    }

    fn with<T>(&self, f: impl FnOnce(&mut BTreeMap<&'static str, ConditionState>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn missing(&self, counts: impl Fn(&ConditionState) -> bool) -> Result<(), Vec<String>> {
        let missing: Vec<String> = self.with(|conditions| {
            let failing = conditions.iter().filter(|(_, state)| counts(state));
            failing.filter_map(|(name, state)| Some(format!("{name}: {}", state.missing.as_ref()?))).collect()
        });
        if missing.is_empty() { Ok(()) } else { Err(missing) }
    }

    /// Whether every startup condition has held once.
    pub fn started(&self) -> Result<(), Vec<String>> {
        self.missing(|state| state.scope == Scope::Startup && !state.held_once)
    }

    /// Whether every condition holds.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        self.missing(|_| true)
    }

    /// Whether every liveness condition holds.
    pub fn alive(&self) -> Result<(), Vec<String>> {
        self.missing(|state| state.scope == Scope::Liveness)
    }

    fn notes(&self) -> Vec<String> {
        self.with(|conditions| {
            let noted = conditions.iter().filter_map(|(name, state)| Some((name, state.note.as_ref()?)));
            noted.map(|(name, note)| format!("{name}: {note}")).collect()
        })
    }

    /// Each condition, and whether it holds.
    pub(crate) fn conditions(&self) -> Vec<(&'static str, bool)> {
        self.with(|conditions| {
            conditions.iter().map(|(name, state)| (*name, state.missing.is_none())).collect()
        })
    }

    /// `/v1/runtime/{startup,readiness,liveness}`: 200, with what is to be said nevertheless, or 500 with what is missing.
    /// The last two also as `/readyz` and `/healthz`, as Kubernetes' own components have them.
    pub fn router(&self) -> Router {
        type Probe = fn(&Health) -> Result<(), Vec<String>>;
        let probe = |probe: Probe| {
            get(move |State(health): State<Health>| async move {
                match (probe(&health), health.notes()) {
                    (Err(missing), _) => (StatusCode::INTERNAL_SERVER_ERROR, Json(missing)).into_response(),
                    (Ok(()), notes) if notes.is_empty() => StatusCode::OK.into_response(),
                    (Ok(()), notes) => Json(notes).into_response(),
                }
            })
        };
        Router::new()
            .route("/v1/runtime/startup", probe(Health::started))
            .route("/v1/runtime/readiness", probe(Health::ready))
            .route("/v1/runtime/liveness", probe(Health::alive))
            .route("/readyz", probe(Health::ready))
            .route("/healthz", probe(Health::alive))
            .with_state(self.clone())
    }
}

impl Condition {
    /// The condition holds.
    pub fn met(&self) {
        self.set(None, None);
    }

    /// The condition holds, with something to be said of it.
    pub fn met_with(&self, note: impl Into<String>) {
        self.set(None, Some(note.into()));
    }

    /// The condition does not hold, and why.
    pub fn unmet(&self, why: impl Into<String>) {
        self.set(Some(why.into()), None);
    }

    /// Removes the condition: its part of the process has ended as it should.
    pub fn retire(&self) {
        self.health.with(|conditions| conditions.remove(self.name));
    }

    fn set(&self, missing: Option<String>, note: Option<String>) {
        self.health.with(|conditions| {
            if let Some(state) = conditions.get_mut(self.name) {
                state.held_once |= missing.is_none();
                state.missing = missing;
                state.note = note;
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(health: &Health, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = health.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_probe_lists_unmet_conditions() {
        let health = Health::default();
        let synced = health.condition("watches", Scope::Startup);
        let server = health.condition("API server", Scope::Readiness);
        assert_eq!(ask(&health, "/v1/runtime/liveness").await, (StatusCode::OK, String::new()));
        assert_eq!(ask(&health, "/v1/runtime/startup").await.1, r#"["watches: not yet"]"#);
        server.met_with("slow");
        assert_eq!(
            ask(&health, "/v1/runtime/liveness").await,
            (StatusCode::OK, r#"["API server: slow"]"#.to_owned())
        );

        synced.met();
        server.unmet("connection refused");
        assert_eq!(ask(&health, "/v1/runtime/startup").await.0, StatusCode::OK);
        let (status, body) = ask(&health, "/v1/runtime/readiness").await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::INTERNAL_SERVER_ERROR, r#"["API server: connection refused"]"#)
        );

        assert_eq!(ask(&health, "/readyz").await, (status, body));
        assert_eq!(ask(&health, "/healthz").await.0, StatusCode::OK);
        assert_eq!(health.conditions(), [("API server", false), ("watches", true)]);

        server.met();
        assert_eq!(ask(&health, "/v1/runtime/readiness").await.0, StatusCode::OK);
        let panicked = health.condition("tasks", Scope::Liveness);
        assert_eq!(ask(&health, "/healthz").await.1, r#"["tasks: not yet"]"#);
        panicked.met();
        assert_eq!(ask(&health, "/healthz").await.0, StatusCode::OK);
    }

    #[test]
    fn a_retired_condition_does_not_count() {
        let health = Health::default();
        let watch = health.condition("watch", Scope::Readiness);
        assert!(health.ready().is_err());
        watch.retire();
        assert_eq!(health.ready(), Ok(()));
        watch.met();
    }

    #[test]
    fn a_startup_condition_needs_to_have_held_once() {
        let health = Health::default();
        let synced = health.condition("watches", Scope::Startup);
        synced.met();
        synced.unmet("lost");
        assert_eq!(health.started(), Ok(()));
        assert_eq!(health.ready(), Err(vec!["watches: lost".to_owned()]));
    }
}
