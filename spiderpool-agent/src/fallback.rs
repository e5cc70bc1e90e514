//! `dataplane: policy` in place of `ebpf` on a node that cannot load the programs: who is told, and which one new pods get.
//! Pods that have programs keep them.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use spiderpool_core::coordinator::Dataplane;
use spiderpool_runtime::health::Condition;
use tracing::{info, warn};

use crate::node_events::NodeEvents;

/// Shared by what loads the programs, what watches the cluster's setting, and what answers plugins. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fallback(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    condition: Condition,
    active: Gauge,
    events: NodeEvents,
}

#[derive(Debug, Default)]
struct State {
    /// The cluster's setting; `None` while it is not known.
    wanted: Option<Dataplane>,
    programs: ProgramsState,
    /// For which reason there was an Event.
    reported: Option<String>,
}

/// How far the programs are.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum ProgramsState {
    /// Not tried yet.
    #[default]
    Pending,
    /// Loaded.
    Loaded,
    /// The node cannot load them: why.
    Impossible(String),
    /// Something else is in the way, which rules and tables would not help with.
    Blocked(String),
}

impl Fallback {
    /// `condition` is the agent's readiness to serve pods with NICs on the underlay, `active` a metric that is 1 while they
    /// get the other dataplane.
    pub fn new(condition: Condition, active: Gauge, events: NodeEvents) -> Self {
        Self(Arc::new(Inner { state: Mutex::default(), condition, active, events }))
    }

    /// Sets the cluster's setting.
    pub fn set_wanted(&self, wanted: Dataplane) {
        self.update(|state| state.wanted = Some(wanted));
    }

    /// The programs were loaded, or not.
    pub(crate) fn set_programs(&self, programs: ProgramsState) {
        self.update(|state| state.programs = programs);
    }

    /// What a new pod gets where the cluster's setting is `wanted`.
    pub fn dataplane(&self, wanted: Dataplane) -> Dataplane {
        match self.lock().programs {
            ProgramsState::Impossible(_) => Dataplane::Policy,
            _ => wanted,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        let Inner { condition, active: metric, events, .. } = &*self.0;
        let mut state = self.lock();
        change(&mut state);
        let is_policy = state.wanted == Some(Dataplane::Policy);
        let mut active = 0;
        match state.programs.clone() {
            // The setting may be policy because the nodes cannot do otherwise.
            ProgramsState::Impossible(_) | ProgramsState::Loaded if is_policy => condition.met(),
            ProgramsState::Loaded => {
                if state.reported.take().is_some() {
                    info!("eBPF dataplane is loaded: new pods get it");
                }
                condition.met();
            }
            ProgramsState::Impossible(reason) => {
                active = 1;
                condition.met_with(format!("new pods get dataplane policy: {reason}"));
                if state.wanted.is_some() && state.reported.as_ref() != Some(&reason) {
                    warn!(reason, "new pods get dataplane policy");
                    events.fallback(&reason);
                    state.reported = Some(reason);
                }
            }
            ProgramsState::Pending => condition.unmet("not yet"),
            ProgramsState::Blocked(reason) => condition.unmet(reason),
        }
        metric.set(active);
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_runtime::health::{Health, Scope};

    use super::*;

    #[test]
    fn a_node_that_cannot_load_programs_falls_back_and_says_so_once_per_reason() {
        let health = Health::default();
        let (events, mut said) = NodeEvents::new();
        let metric = Gauge::default();
        let condition = health.condition("dataplane", Scope::Readiness);
        let fallback = Fallback::new(condition, metric.clone(), events);
        let mut check = |expect: Dataplane, ready: bool, active: i64, events: usize| {
            assert_eq!(fallback.dataplane(Dataplane::Ebpf), expect);
            assert_eq!(fallback.dataplane(Dataplane::Policy), Dataplane::Policy);
            assert_eq!((health.ready().is_ok(), metric.get()), (ready, active));
            let mut count = 0;
            while said.try_recv().is_ok() {
                count += 1;
            }
            assert_eq!(count, events);
        };
        check(Dataplane::Ebpf, false, 0, 0);
        let impossible = |why: &str| fallback.set_programs(ProgramsState::Impossible(why.to_owned()));
        impossible("no bpffs");
        check(Dataplane::Policy, true, 1, 0);
        fallback.set_wanted(Dataplane::Ebpf);
        check(Dataplane::Policy, true, 1, 1);
        impossible("no bpffs");
        check(Dataplane::Policy, true, 1, 0);
        impossible("no rights");
        check(Dataplane::Policy, true, 1, 1);
        fallback.set_wanted(Dataplane::Policy);
        check(Dataplane::Policy, true, 0, 0);
        fallback.set_wanted(Dataplane::Ebpf);
        fallback.set_programs(ProgramsState::Blocked("disk full".to_owned()));
        check(Dataplane::Ebpf, false, 0, 0);
        fallback.set_programs(ProgramsState::Loaded);
        check(Dataplane::Ebpf, true, 0, 0);
    }
}
