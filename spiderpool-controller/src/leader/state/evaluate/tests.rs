use spiderpool_runtime::watch::Index;

use super::super::slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};
use super::*;

fn policy(now: &str) -> Policy {
    Policy {
        now: now.parse().unwrap(),
        additional: Duration::ZERO,
        rules: OverdueRules { on_ready_nodes: true, on_dead_nodes: true },
    }
}

/// Long after the pods were listed and deleted.
const NOW: &str = "2100-01-01T00:01:00Z";

fn pod(uid: &str, stage: Stage) -> SlimPod {
    SlimPod {
        namespace: "ns".into(),
        name: "p".into(),
        uid: uid.into(),
        node: "n1".into(),
        stage,
        has_stopped: false,
        deletion: (stage == Stage::Terminating).then(|| "2100-01-01T00:01:30Z".parse().unwrap()),
        may_run_for: None,
    }
}

fn address(net: &str, uid: &str) -> SlimAddress {
    let net: ipnet::IpNet = net.parse().unwrap();
    SlimAddress {
        ip: Some(net.addr()),
        net: Some(net),
        pool: "pool".into(),
        interface: "net1".into(),
        node: "n1".into(),
        namespace: "ns".into(),
        pod: "p".into(),
        uid: uid.into(),
        owner_kind: "Deployment".into(),
        owner_name: "web".into(),
        is_bound: true,
    }
}

fn endpoint(uid: &str, nets: &[&str]) -> SlimEndpoint {
    SlimEndpoint {
        namespace: "ns".into(),
        name: "p".into(),
        uid: uid.into(),
        is_owned: true,
        entries: nets.iter().map(|net| ("net1".to_owned(), net.parse().unwrap())).collect(),
    }
}

fn id(uid: &str) -> PodId {
    PodId { namespace: "ns".into(), name: "p".into(), uid: uid.into() }
}

fn cluster(pods: Vec<SlimPod>, addresses: Vec<SlimAddress>) -> ClusterState {
    let mut state = ClusterState::default();
    state.reset(pods);
    state.reset(addresses);
    state.reset(vec![SlimNode { name: "n1".into(), is_ready: true }]);
    state
}

#[test]
fn a_running_pod_keeps_its_addresses_and_gets_a_missing_endpoint() {
    let mut state = cluster(vec![pod("u", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::WriteEndpoint);
    state.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
    state.apply(address("fd00::1/64", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::WriteEndpoint);
    // A second address for the NIC and family is surplus: its agent frees it.
    state.apply(endpoint("u", &["10.0.0.1/24", "fd00::1/64"]));
    state.apply(address("10.0.0.2/24", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
}

#[test]
fn addresses_of_gone_replaced_and_finished_pods_are_freed() {
    let gone = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(gone.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    let replaced = cluster(vec![pod("other", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(replaced.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    assert_eq!(replaced.evaluate(&id("other"), policy(NOW)), PodAction::None, "it holds nothing");
    let finished = cluster(vec![pod("u", Stage::Finished)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(finished.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Finished));
}

/// `kubectl delete --force` removes the object before the kubelet has stopped the containers.
#[test]
fn a_force_deleted_pod_keeps_its_addresses_for_its_grace_period() {
    let running = SlimPod { may_run_for: Some(Duration::from_secs(35)), ..pod("u", Stage::Alive) };
    let now = || Policy { now: Timestamp::now(), ..policy(NOW) };
    let after = || Policy { now: now().now + SignedDuration::from_secs(36), ..now() };
    let mut seen = cluster(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    seen.delete(&running);
    let mut missed = cluster(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    Index::<SlimPod>::reset(&mut missed, vec![pod("other", Stage::Alive)]);
    for state in [&mut seen, &mut missed] {
        assert!(matches!(state.evaluate(&id("u"), now()), PodAction::RecheckAt(_)));
        assert_eq!(state.evaluate(&id("u"), after()), PodAction::Free(FreeReason::Gone));
        state.delete(&SlimNode { name: "n1".into(), is_ready: true });
        assert_eq!(state.evaluate(&id("u"), now()), PodAction::Free(FreeReason::Gone), "no node runs it");
    }
    let mut stopped = cluster(vec![pod("u", Stage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    stopped.delete(&pod("u", Stage::Terminating));
    assert_eq!(stopped.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    let unknown = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    assert!(
        matches!(unknown.evaluate(&id("u"), now()), PodAction::RecheckAt(_)),
        "its object may have been deleted just before the list"
    );
    assert_eq!(unknown.evaluate(&id("u"), after()), PodAction::Free(FreeReason::Gone));
}

/// Upstream waits the grace period twice.
#[test]
fn a_grace_period_is_waited_for_once_and_ends_on_a_node_that_is_not_ready() {
    let mut state = cluster(vec![pod("u", Stage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    let end: Timestamp = "2100-01-01T00:01:30Z".parse().unwrap();
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::RecheckAt(end));
    let after = policy("2100-01-01T00:01:30Z");
    assert_eq!(state.evaluate(&id("u"), after), PodAction::None, "its kubelet is still stopping it");
    state.take_changes();
    state.apply(SlimNode { name: "n1".into(), is_ready: false });
    assert!(state.take_changes().pods.contains(&id("u")), "the node's change marks its pods");
    assert_eq!(state.evaluate(&id("u"), after), PodAction::Free(FreeReason::Overdue));
    state.delete(&SlimNode { name: "n1".into(), is_ready: false });
    assert_eq!(state.evaluate(&id("u"), after), PodAction::Free(FreeReason::Overdue));
    let additional = Policy { additional: Duration::from_mins(1), ..after };
    assert!(matches!(state.evaluate(&id("u"), additional), PodAction::RecheckAt(_)));
}

#[test]
fn only_bound_addresses_are_freed() {
    let kept = SlimAddress { is_bound: false, ..address("10.0.0.1/24", "u") };
    assert_eq!(cluster(vec![], vec![kept]).evaluate(&id("u"), policy(NOW)), PodAction::None);
}

#[test]
fn a_static_pod_keeps_its_addresses_without_its_mirror_pod() {
    let of_node = SlimAddress { owner_kind: "Node".into(), ..address("10.0.0.1/24", "u") };
    assert_eq!(cluster(vec![], vec![of_node]).evaluate(&id("u"), policy(NOW)), PodAction::None);
}

/// Upstream cleans these only with a switch that is off by default.
#[test]
fn an_endpoint_without_pod_is_removed_unless_it_was_made_to_outlive_it() {
    let mut state = cluster(vec![], vec![]);
    state.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    state.apply(SlimEndpoint { is_owned: false, ..endpoint("u", &["10.0.0.1/24"]) });
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
}

#[test]
fn only_pods_with_addresses_are_marked_as_changed() {
    let mut state = cluster(vec![pod("u", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    state.take_changes();
    state.apply(pod("u", Stage::Alive));
    state.apply(pod("idle", Stage::Alive));
    state.delete(&pod("idle", Stage::Alive));
    assert!(state.take_changes().pods.is_empty());
    state.delete(&pod("u", Stage::Alive));
    assert!(state.take_changes().pods.contains(&id("u")));
    state.delete(&address("10.0.0.1/24", "u"));
    let changes = state.take_changes();
    assert!(changes.pods.is_empty() && changes.pools.contains("pool"));
    assert!(state.addresses.is_empty() && state.addresses.holder(&id("u")).is_none());
}

#[test]
fn a_reallocated_address_leaves_its_former_holder() {
    let mut state = cluster(vec![], vec![address("10.0.0.1/24", "old"), address("10.0.0.2/24", "old")]);
    state.apply(address("10.0.0.1/24", "new"));
    assert_eq!(state.addresses.bound(&id("old")), ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(state.addresses.bound(&id("new")).len(), 1);
    assert_eq!((state.addresses.len(), state.addresses.count("pool")), (2, 2));
}
