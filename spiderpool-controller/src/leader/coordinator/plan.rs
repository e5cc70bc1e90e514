//! The desired status, from what is known of the cluster.

mod before;
mod search;

use spiderpool_api::crd::{CoordinatorPhase, PodCidrType, SpiderCoordinatorStatus};

use super::cidrs::Cidrs;
use super::detect::{Detected, Origin, detect};
use super::problem::{Note, StatusProblem};
use super::sources::Sources;
pub(super) use before::Before;
use search::Search;

/// The desired status, and what its reason is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusPlan {
    pub(super) status: SpiderCoordinatorStatus,
    /// What keeps pods from starting comes first.
    pub(super) problems: Vec<StatusProblem>,
    pub(super) notes: Vec<Note>,
}

impl StatusPlan {
    /// Whether something could not be read, of which no watch need tell when it can be.
    pub(super) fn is_unread(&self) -> bool {
        let is_noted = |note: &Note| matches!(note, Note::Unread { .. });
        self.problems.iter().any(StatusProblem::is_unread) || self.notes.iter().any(is_noted)
    }
}

/// The type that counts; an absent one is auto.
pub(super) fn effective(kind: Option<PodCidrType>) -> PodCidrType {
    kind.unwrap_or(PodCidrType::Auto)
}

/// The status. What was known before stays where something is missing now, in whatever phase: running pods follow it.
pub(super) fn plan(kind: PodCidrType, sources: &Sources, before: &Before) -> StatusPlan {
    let Pods { phase, mut problems, mut notes, found, needs_known } = pods(kind, sources, before);
    let mut is_kept = false;
    let mut or_known = |found: Cidrs, known: &Cidrs, is_needed: bool| {
        let mut cidrs = if is_needed { known.clone() } else { Cidrs::default() };
        cidrs.extend(found.clone());
        is_kept |= cidrs.nets.len() > found.nets.len();
        cidrs
    };
    let pods = or_known(found, &before.pods, needs_known);
    // The cluster's CNI may still reach Services: no reason to keep pods from starting.
    let mut search = Search::new(sources);
    let services = search.services().unwrap_or_else(|problem| {
        problems.push(problem);
        search.is_partial = true;
        Cidrs::default()
    });
    let services = or_known(services, &before.services, search.is_partial);
    notes.append(&mut search.notes);
    notes.extend(pods.invalid.iter().cloned().map(Note::Invalid));
    notes.extend(is_kept.then_some(Note::Kept));
    let texts = problems.iter().map(ToString::to_string).chain(notes.iter().map(ToString::to_string));
    let reason = Some(texts.collect::<Vec<_>>().join("; ")).filter(|reason| !reason.is_empty());
    let status = SpiderCoordinatorStatus {
        phase,
        reason,
        overlay_pod_cidr: pods.texts(),
        service_cidr: services.texts(),
    };
    StatusPlan { status, problems, notes }
}

/// What is known of pod CIDRs.
struct Pods {
    phase: CoordinatorPhase,
    problems: Vec<StatusProblem>,
    notes: Vec<Note>,
    found: Cidrs,
    /// There may be more than was found.
    needs_known: bool,
}

fn pods(kind: PodCidrType, sources: &Sources, before: &Before) -> Pods {
    let mut problems: Vec<_> =
        if kind == PodCidrType::Auto { undecided(sources).collect() } else { Vec::new() };
    let is_undecided = !problems.is_empty();
    let Detected { origins, note } =
        if is_undecided { Detected { origins: vec![], note: None } } else { origins(kind, sources) };
    let mut search = Search::new(sources);
    let (mut found, mut has_any) = (Cidrs::default(), false);
    for origin in origins {
        match search.pods_of(origin) {
            Ok(cidrs) => {
                found.extend(cidrs);
                has_any = true;
            }
            Err(problem) => problems.push(problem),
        }
    }
    let is_unread = problems.iter().any(StatusProblem::is_unread);
    let is_synced = problems.is_empty()
        || if is_unread {
            before.was_synced(kind)
        } else {
            // Of two networks one is known; or pods went without, before auto was chosen or while somebody lists them.
            has_any || (kind == PodCidrType::Auto && before.does_without_cidrs())
        };
    let mut notes: Vec<_> = note.into_iter().collect();
    if kind == PodCidrType::Auto
        && let Some(error) = sources.agents.failure()
    {
        notes.push(Note::Unread { what: "the networks' DaemonSets", error: error.to_owned() });
    }
    let needs_known = search.is_partial || !problems.is_empty();
    notes.append(&mut search.notes);
    let phase = if is_synced { CoordinatorPhase::Synced } else { CoordinatorPhase::NotReady };
    Pods { phase, problems, notes, found, needs_known }
}

fn origins(kind: PodCidrType, sources: &Sources) -> Detected {
    let origins = match kind {
        PodCidrType::Auto => return detect(sources),
        PodCidrType::None => vec![],
        PodCidrType::Cluster => vec![Origin::Cluster],
        PodCidrType::Calico => vec![Origin::Calico],
        PodCidrType::Cilium => vec![Origin::Cilium],
    };
    Detected { origins, note: None }
}

/// What auto decides by and cannot read. That it is not there would be another answer.
fn undecided(sources: &Sources) -> impl Iterator<Item = StatusProblem> {
    let failed =
        [("Calico's IPPools", sources.calico.failure()), ("Cilium's ConfigMap", sources.cilium.failure())];
    failed
        .into_iter()
        .filter_map(|(what, error)| Some(StatusProblem::Undecided { what, error: error?.to_owned() }))
}

#[cfg(test)]
mod tests;
