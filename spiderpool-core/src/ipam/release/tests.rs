//! The rules of the design, row by row. Times are plain numbers.

use super::super::holding::tests::{holding, owner};
use super::*;

const ALL: ReleasePolicy = ReleasePolicy { overdue_on_ready_nodes: true, overdue_on_not_ready_nodes: true };

/// Who decides: each knows something of its own.
#[derive(Debug, Clone, Copy)]
enum Asker {
    /// The runtime's DEL.
    Del,
    /// The runtime's GC, which does not name the sandbox.
    Gc,
    /// The agent, on its own.
    Sweep,
    /// The leader, while the pod's node answers.
    Leader,
    /// The leader, when the node does not answer and has had the time to say that it is alive.
    LeaderOfDeadNode,
    /// The leader, when that time is not over.
    LeaderOfSilentNode,
    /// The leader, when the node's agent says that the pod runs.
    LeaderOfLivePod,
}

use Asker::{Del, Gc, Leader, LeaderOfDeadNode, LeaderOfLivePod, LeaderOfSilentNode, Sweep};

/// When the node of [`LeaderOfSilentNode`] has had its time, and that of [`LeaderOfLivePod`] is to be heard of again.
const SETTLED: u64 = 50;

/// The pod that has the name: its UID, stage, whether it has stopped, and the end of its grace period.
type Found = Option<(&'static str, PodStage, bool, Option<u64>)>;

mod lives;

const ALIVE: Found = Some(("u", PodStage::Alive, false, None));
const TERMINATING: Found = Some(("u", PodStage::Terminating, false, Some(30)));
const STOPPED: Found = Some(("u", PodStage::Terminating, true, Some(30)));
const FINISHED: Found = Some(("u", PodStage::Finished, true, Some(30)));
const REPLACED: Found = Some(("other", PodStage::Alive, false, None));
const GONE: Found = None;

fn decide(
    asker: Asker,
    owner: &Owner,
    found: Found,
    now: u64,
    may_run_until: Option<u64>,
) -> Disposition<u64> {
    let uid: PodUid = found.map_or("none", |(uid, ..)| uid).parse().unwrap();
    let pod = found.map(|(_, stage, has_stopped, grace_end)| PodEvidence {
        uid: &uid,
        stage,
        has_stopped,
        has_running: !has_stopped,
        grace_end,
    });
    let evidence = Evidence {
        now,
        pod,
        sandbox: match asker {
            Del => SandboxState::TornDown,
            Gc => SandboxState::Unlisted,
            LeaderOfLivePod => SandboxState::Running { until: SETTLED },
            Sweep | Leader | LeaderOfDeadNode | LeaderOfSilentNode => SandboxState::Unknown,
        },
        node: match asker {
            Del | Gc | Sweep | Leader => NodeState::Ready,
            LeaderOfDeadNode | LeaderOfLivePod => NodeState::NotReady { settled: 0 },
            LeaderOfSilentNode => NodeState::NotReady { settled: SETTLED },
        },
        may_run_until,
    };
    let policy = if matches!(asker, Del | Gc | Sweep) { ReleasePolicy::default() } else { ALL };
    plan_owner_release(owner, &evidence, policy)
}

/// At time 10, within every grace period.
#[track_caller]
fn check(found: Found, askers: &[Asker], expect: Disposition<u64>) {
    for asker in askers {
        assert_eq!(decide(*asker, &owner("u", "Deployment"), found, 10, None), expect, "{asker:?} {found:?}");
    }
}

const EVERYBODY: [Asker; 4] = [Del, Sweep, Leader, LeaderOfDeadNode];
const WITHOUT_DEL: [Asker; 3] = [Sweep, Leader, LeaderOfDeadNode];

#[test]
fn nobody_frees_an_address_of_a_pod_that_is_alive() {
    check(ALIVE, &EVERYBODY, Disposition::Leave(LeaveReason::InUse));
    // Not even when the watch has seen it vanish: the name is found with its UID.
    assert_eq!(
        decide(Sweep, &owner("u", "Node"), ALIVE, 10, Some(5)),
        Disposition::Leave(LeaveReason::InUse)
    );
}

#[test]
fn what_is_gone_or_replaced_is_freed_by_everybody() {
    check(GONE, &EVERYBODY, Disposition::Free(FreeReason::Gone));
    check(REPLACED, &EVERYBODY, Disposition::Free(FreeReason::Gone));
}

/// Pod garbage collection sets the phase of a pod whose kubelet does not answer, and may still run it.
#[test]
fn a_finished_pod_is_freed_by_its_del_and_otherwise_after_its_grace_period() {
    check(FINISHED, &[Del], Disposition::Free(FreeReason::Finished));
    check(FINISHED, &WITHOUT_DEL, Disposition::Leave(LeaveReason::Terminating { grace_end: Some(30) }));
    for asker in EVERYBODY {
        let at_end = decide(asker, &owner("u", "Job"), FINISHED, 30, None);
        assert_eq!(at_end, Disposition::Free(FreeReason::Finished), "{asker:?}");
    }
}

fn decide_detached(found: Found, now: u64, settled: Option<u64>, kind: &str) -> Disposition<u64> {
    let uid: PodUid = found.map_or("none", |(uid, ..)| uid).parse().unwrap();
    let pod = found.map(|(_, stage, has_stopped, grace_end)| PodEvidence {
        uid: &uid,
        stage,
        has_stopped,
        has_running: !has_stopped,
        grace_end,
    });
    let sandbox = SandboxState::Detached { settled };
    let evidence = Evidence { now, pod, sandbox, node: NodeState::Ready, may_run_until: Some(99) };
    plan_owner_release(&owner("u", kind), &evidence, ReleasePolicy::default())
}

#[test]
fn an_address_without_a_sandbox_needs_no_grace() {
    for (found, reason) in [
        (FINISHED, FreeReason::Finished),
        (TERMINATING, FreeReason::TornDown),
        (GONE, FreeReason::Gone),
        (REPLACED, FreeReason::Gone),
    ] {
        assert_eq!(decide_detached(found, 1, None, "Job"), Disposition::Free(reason), "{found:?}");
    }
    // Its kubelet may start it again, with or without a mirror, unless its manifest was removed.
    let until = Disposition::Leave(LeaveReason::Detached { until: 10 });
    assert_eq!(decide_detached(GONE, 9, Some(10), "Node"), until);
    assert_eq!(decide_detached(GONE, 10, Some(10), "Node"), Disposition::Free(FreeReason::Gone));
    assert_eq!(decide_detached(GONE, 1, None, "Node"), Disposition::Leave(LeaveReason::StaticPod));
}

#[test]
fn static_pods_end_with_their_node() {
    for (node, expected) in [
        (NodeState::Ready, Disposition::Leave(LeaveReason::StaticPod)),
        (NodeState::NotReady { settled: 0 }, Disposition::Leave(LeaveReason::StaticPod)),
        (NodeState::OutOfService, Disposition::Leave(LeaveReason::StaticPod)),
        (NodeState::Deleted, Disposition::Free(FreeReason::Gone)),
    ] {
        let evidence =
            Evidence { now: 1, pod: None, sandbox: SandboxState::Unknown, node, may_run_until: None };
        let plan = plan_owner_release(&owner("u", "Node"), &evidence, ReleasePolicy::default());
        assert_eq!(plan, expected, "{node:?}");
    }
}

/// A DEL for one NIC of a pod that goes on.
#[test]
fn a_nic_that_was_unplugged_loses_its_address() {
    let until = |settled| Disposition::Leave(LeaveReason::Detached { until: settled });
    assert_eq!(decide_detached(ALIVE, 9, Some(10), "Deployment"), until(10), "a sandbox may follow");
    assert_eq!(decide_detached(ALIVE, 10, Some(10), "Deployment"), Disposition::Free(FreeReason::Unplugged));
    assert_eq!(
        decide_detached(ALIVE, 10, None, "Deployment"),
        Disposition::Leave(LeaveReason::InUse),
        "who does not count the time does not know"
    );
}

/// The sandbox was torn down and the next one is not there yet, however long that takes.
#[test]
fn a_pod_that_waits_for_its_next_sandbox_keeps_its_addresses() {
    let waiting: Found = Some(("u", PodStage::Alive, true, None));
    assert_eq!(
        decide_detached(waiting, 1000, Some(10), "Deployment"),
        Disposition::Leave(LeaveReason::InUse)
    );
}

#[test]
fn only_a_del_ends_a_pod_in_its_grace_period() {
    check(TERMINATING, &[Del], Disposition::Free(FreeReason::TornDown));
    check(TERMINATING, &WITHOUT_DEL, Disposition::Leave(LeaveReason::Terminating { grace_end: Some(30) }));
}

/// Upstream waits the grace period twice; the caller gives the end of the one that the API server names.
#[test]
fn an_overdue_pod_has_ended_on_a_dead_node_or_when_it_has_stopped() {
    let at_end = |asker, found| decide(asker, &owner("u", "Deployment"), found, 30, None);
    let left = Disposition::Leave(LeaveReason::Terminating { grace_end: Some(30) });
    assert_eq!(at_end(LeaderOfDeadNode, TERMINATING), Disposition::Free(FreeReason::Overdue));
    assert_eq!(at_end(Leader, STOPPED), Disposition::Free(FreeReason::Overdue));
    assert_eq!(at_end(Leader, TERMINATING), left, "its kubelet is at work");
    assert_eq!(at_end(Sweep, STOPPED), left, "the agent waits for the DEL");
}

#[test]
fn without_the_policy_no_pod_is_overdue() {
    let uid = "u".parse().unwrap();
    for node in [NodeState::Ready, NodeState::NotReady { settled: 0 }, NodeState::OutOfService] {
        let pod = PodEvidence {
            uid: &uid,
            stage: PodStage::Terminating,
            has_stopped: true,
            has_running: false,
            grace_end: Some(30),
        };
        let evidence =
            Evidence { now: 99, pod: Some(pod), sandbox: SandboxState::Unknown, node, may_run_until: None };
        let disposition = plan_owner_release(&owner("u", "Deployment"), &evidence, ReleasePolicy::default());
        assert_eq!(disposition, Disposition::Leave(LeaveReason::Terminating { grace_end: Some(30) }));
    }
}

/// A kubelet that has died leaves its containers running.
#[test]
fn a_pod_that_its_agent_sees_running_keeps_its_addresses() {
    let running = Disposition::Leave(LeaveReason::Running { until: SETTLED });
    for found in [TERMINATING, STOPPED, FINISHED, GONE, REPLACED] {
        assert_eq!(
            decide(LeaderOfLivePod, &owner("u", "Deployment"), found, 999, Some(5)),
            running,
            "{found:?}"
        );
    }
    check(ALIVE, &[LeaderOfLivePod], Disposition::Leave(LeaveReason::InUse));
}

#[test]
fn a_node_that_does_not_answer_has_the_time_to_say_that_it_is_alive() {
    let at = |found, now| decide(LeaderOfSilentNode, &owner("u", "Deployment"), found, now, Some(35));
    for found in [GONE, REPLACED] {
        assert_eq!(at(found, 49), Disposition::Leave(LeaveReason::MayRun { until: SETTLED }));
        assert_eq!(at(found, SETTLED), Disposition::Free(FreeReason::Gone));
    }
    for (found, reason) in [(TERMINATING, FreeReason::Overdue), (FINISHED, FreeReason::Finished)] {
        assert_eq!(at(found, 49), Disposition::Leave(LeaveReason::Terminating { grace_end: Some(SETTLED) }));
        assert_eq!(at(found, SETTLED), Disposition::Free(reason));
    }
}

#[test]
fn a_forgotten_pod_of_a_node_that_does_not_answer_is_freed_by_the_policy_alone() {
    let evidence =
        |node| Evidence { now: 99, pod: None, sandbox: SandboxState::Unknown, node, may_run_until: None };
    let plan = |node, policy| plan_owner_release(&owner("u", "Deployment"), &evidence(node), policy);
    let gone = Disposition::Free(FreeReason::Gone);
    let not_ready = NodeState::NotReady { settled: 0 };
    assert_eq!(plan(not_ready, ReleasePolicy::default()), Disposition::Leave(LeaveReason::NodeNotReady));
    assert_eq!(plan(not_ready, ALL), gone);
    // Somebody has said that nothing runs there.
    for node in [NodeState::OutOfService, NodeState::Deleted] {
        assert_eq!(plan(node, ReleasePolicy::default()), gone, "{node:?}");
    }
}

#[test]
fn a_static_pod_outlives_its_mirror() {
    for asker in WITHOUT_DEL {
        let of_node = |found| decide(asker, &owner("u", "Node"), found, 10, None);
        assert_eq!(of_node(GONE), Disposition::Leave(LeaveReason::StaticPod));
        assert_eq!(of_node(REPLACED), Disposition::Free(FreeReason::Gone), "its manifest has changed");
    }
    assert_eq!(decide(Del, &owner("u", "Node"), GONE, 10, None), Disposition::Free(FreeReason::Gone));
}

/// As `kubectl delete --force` does it: the API server forgets the pod before its kubelet has seen the deletion.
#[test]
fn a_pod_that_was_deleted_by_force_keeps_its_addresses_while_it_may_run() {
    let vanished = |asker, found, now| decide(asker, &owner("u", "Deployment"), found, now, Some(35));
    for found in [GONE, REPLACED] {
        for asker in [Sweep, Leader] {
            assert_eq!(vanished(asker, found, 34), Disposition::Leave(LeaveReason::MayRun { until: 35 }));
            assert_eq!(vanished(asker, found, 35), Disposition::Free(FreeReason::Gone));
        }
        assert_eq!(vanished(Del, found, 34), Disposition::Free(FreeReason::Gone), "its network is down");
        assert_eq!(
            vanished(LeaderOfDeadNode, found, 34),
            Disposition::Free(FreeReason::Gone),
            "nobody runs it"
        );
    }
}

#[test]
fn an_address_is_freed_unless_it_waits_for_another_pod_or_is_somebody_elses() {
    let bound = holding("eth0", "10.6.0.9/16", "p", "u");
    let evidence = Evidence {
        now: 0,
        pod: None,
        sandbox: SandboxState::TornDown,
        node: NodeState::Ready,
        may_run_until: None,
    };
    let of = |state, successor| plan_release(&Holding { state, ..bound.clone() }, &evidence, ALL, successor);
    assert_eq!(of(AddressState::Bound, Successor::None), Disposition::Free(FreeReason::Gone));
    assert_eq!(of(AddressState::Kept, Successor::None), Disposition::Free(FreeReason::Unclaimed));
    for state in [AddressState::Bound, AddressState::Kept] {
        assert_eq!(of(state, Successor::Expected), Disposition::Keep);
    }
    for successor in [Successor::None, Successor::Expected] {
        assert_eq!(of(AddressState::Quarantined, successor), Disposition::Leave(LeaveReason::Quarantined));
    }
}

/// What would not be freed without a successor is not kept with one: the pod may still use it.
#[test]
fn only_what_nothing_uses_is_kept_and_nothing_of_an_unplugged_nic() {
    let keep = |disposition: Disposition<u64>| disposition.with_successor(Successor::Expected);
    for reason in [FreeReason::Gone, FreeReason::Finished, FreeReason::TornDown, FreeReason::Overdue] {
        assert_eq!(keep(Disposition::Free(reason)), Disposition::Keep);
    }
    let unplugged = Disposition::Free(FreeReason::Unplugged);
    let terminating = Disposition::Leave(LeaveReason::Terminating { grace_end: Some(3) });
    for other in [unplugged, Disposition::Leave(LeaveReason::InUse), terminating] {
        assert_eq!(keep(other), other);
    }
}

/// A runtime's list may be older than the sandbox; a pod that is alive keeps what it has.
#[test]
fn gc_frees_what_the_runtime_does_not_know_but_nothing_of_a_living_pod() {
    check(ALIVE, &[Gc], Disposition::Leave(LeaveReason::InUse));
    check(TERMINATING, &[Gc], Disposition::Free(FreeReason::TornDown));
    check(FINISHED, &[Gc], Disposition::Free(FreeReason::Finished));
    check(REPLACED, &[Gc], Disposition::Free(FreeReason::Gone));
    check(GONE, &[Gc], Disposition::Free(FreeReason::Gone));
}
