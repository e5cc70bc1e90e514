use std::sync::Arc;

use spiderpool_api::node::NodeReadiness;
use spiderpool_api::virtual_machine::MachineKind;
use spiderpool_core::ipam::{Quarantine, StatefulSetScale, Workload};
use spiderpool_core::names::PodName;
use spiderpool_runtime::watch::Index;

use super::super::node_leases::tests::lease;
use super::super::slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};
use super::super::stateful_sets::SlimStatefulSet;
use super::super::virtual_machines::{MachineLife, SlimMachine};
use super::*;

/// So many seconds from now.
fn policy(seconds: u64) -> Policy {
    Policy {
        now: Instant::now() + Duration::from_secs(seconds),
        clock: SystemTime::now() + Duration::from_secs(seconds),
        additional: Duration::ZERO,
        release: ReleasePolicy { overdue_on_ready_nodes: true, overdue_on_not_ready_nodes: true },
        kept: KeptWorkloads { stateful_sets: true, virtual_machines: true },
    }
}

/// Long after the pods were listed and deleted.
const NOW: u64 = 86_400;

fn pod(uid: &str, stage: PodStage) -> SlimPod {
    SlimPod {
        identity: Some(id(uid)),
        node: Some("n1".parse().unwrap()),
        stage,
        has_stopped: false,
        deletion: (stage == PodStage::Terminating).then_some(Duration::from_secs(30)),
        stops_within: Duration::from_secs(35),
        may_run_for: None,
        third_party: None,
        moved_machine: None,
    }
}

fn address(net: &str, uid: &str) -> SlimAddress {
    address_of(net, uid, "Deployment", AddressState::Bound)
}

fn address_of(net: &str, uid: &str, kind: &str, state: AddressState) -> SlimAddress {
    let address: ipnet::IpNet = net.parse().unwrap();
    let workload = Some(Workload { kind: kind.into(), name: "web".into() });
    let holding = Holding {
        address,
        pool: "pool".parse().unwrap(),
        nic: "net1".parse().unwrap(),
        owner: Arc::new(Owner { pod: id(uid), workload, virtual_machine: None }),
        node: Some("n1".parse().unwrap()),
        container_id: None,
        is_detached: false,
        network: None,
        grace: None,
        state,
        quarantine: None,
    };
    SlimAddress { ip: Some(address.addr()), pool: "pool".into(), holding: Some(holding) }
}

fn endpoint(uid: &str, nets: &[&str]) -> SlimEndpoint {
    SlimEndpoint {
        name: Some(id(uid).name),
        pod: None,
        is_of_machine: false,
        uid: Some(id(uid).uid),
        is_owned: true,
        is_finalizing: false,
        entries: nets.iter().map(|net| ("net1".to_owned(), net.parse().unwrap())).collect(),
    }
}

fn id(uid: &str) -> PodIdentity {
    PodIdentity { name: PodName::new("ns", "web-0").unwrap(), uid: uid.parse().unwrap() }
}

fn node(readiness: NodeReadiness) -> SlimNode {
    SlimNode { name: "n1".into(), readiness, pod_cidrs: Box::default() }
}

fn cluster(pods: Vec<SlimPod>, addresses: Vec<SlimAddress>) -> ClusterState {
    let mut state = ClusterState::default();
    state.reset(pods);
    state.reset(addresses);
    state.reset(vec![node(NodeReadiness::Ready)]);
    state
}

#[test]
fn a_running_pod_keeps_its_addresses_and_gets_a_missing_endpoint() {
    let mut state = cluster(vec![pod("u", PodStage::Alive)], vec![address("10.0.0.1/24", "u")]);
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
fn addresses_of_gone_and_replaced_pods_are_freed() {
    let gone = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(gone.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    let replaced = cluster(vec![pod("other", PodStage::Alive)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(replaced.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    assert_eq!(replaced.evaluate(&id("other"), policy(NOW)), PodAction::None, "it holds nothing");
}

/// Pod garbage collection sets the phase without the kubelet.
#[test]
fn a_finished_pod_keeps_its_addresses_for_its_grace_period_or_until_its_sandbox_is_gone() {
    let mut state = cluster(vec![pod("u", PodStage::Finished)], vec![address("10.0.0.1/24", "u")]);
    assert!(matches!(state.evaluate(&id("u"), policy(0)), PodAction::RecheckAt(_)));
    // Another list does not begin it anew.
    let end = state.pods.get(&id("u").uid).unwrap().finishes_at;
    Index::<SlimPod>::reset(&mut state, vec![pod("u", PodStage::Finished)]);
    assert_eq!(state.pods.get(&id("u").uid).unwrap().finishes_at, end);
    assert_eq!(state.evaluate(&id("u"), policy(36)), PodAction::Free(FreeReason::Finished));

    let detached = |net| {
        let mut address = address(net, "u");
        address.holding.as_mut().unwrap().is_detached = true;
        address
    };
    state.apply(detached("10.0.0.1/24"));
    assert_eq!(state.evaluate(&id("u"), policy(0)), PodAction::Free(FreeReason::Finished));
    state.apply(address("fd00::1/64", "u"));
    assert!(matches!(state.evaluate(&id("u"), policy(0)), PodAction::RecheckAt(_)), "another NIC may be up");
    // Whether the NIC of a pod that runs was unplugged, only its node's agent decides.
    let alive = cluster(vec![pod("u", PodStage::Alive)], vec![detached("10.0.0.1/24")]);
    assert_eq!(alive.evaluate(&id("u"), policy(999)), PodAction::None, "nor does an endpoint name it");
}

/// `kubectl delete --force` removes the object before the kubelet has stopped the containers.
#[test]
fn a_force_deleted_pod_keeps_its_addresses_for_its_grace_period() {
    let running = SlimPod { may_run_for: Some(Duration::from_secs(35)), ..pod("u", PodStage::Alive) };
    let (now, after) = (|| policy(0), || policy(46));
    let mut seen = cluster(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    seen.delete(&running);
    let mut missed = cluster(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    Index::<SlimPod>::reset(&mut missed, vec![pod("other", PodStage::Alive)]);
    for state in [&mut seen, &mut missed] {
        assert!(matches!(state.evaluate(&id("u"), now()), PodAction::RecheckAt(_)));
        assert_eq!(state.evaluate(&id("u"), after()), PodAction::Free(FreeReason::Gone));
        state.delete(&node(NodeReadiness::Ready));
        assert_eq!(state.evaluate(&id("u"), now()), PodAction::Free(FreeReason::Gone), "no node runs it");
    }
    let mut stopped = cluster(vec![pod("u", PodStage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    stopped.delete(&pod("u", PodStage::Terminating));
    assert_eq!(stopped.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone));
    let unknown = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    assert!(
        matches!(unknown.evaluate(&id("u"), now()), PodAction::RecheckAt(_)),
        "its object may have been deleted just before the list"
    );
    assert_eq!(unknown.evaluate(&id("u"), after()), PodAction::Free(FreeReason::Gone));
    let mut long = address("10.0.0.1/24", "u");
    long.holding.as_mut().unwrap().grace = Some(Duration::from_mins(10));
    let unknown = cluster(vec![], vec![long]);
    assert!(matches!(unknown.evaluate(&id("u"), after()), PodAction::RecheckAt(_)), "the address says it");
    assert_eq!(unknown.evaluate(&id("u"), policy(606)), PodAction::Free(FreeReason::Gone));
}

/// Upstream waits the grace period twice.
#[test]
fn a_grace_period_is_waited_for_once_and_ends_on_a_node_that_is_not_ready() {
    let mut state = cluster(vec![pod("u", PodStage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    let end = |state: &ClusterState| state.pods.get(&id("u").uid)?.deletion?.ends_at;
    let first = end(&state).unwrap();
    assert_eq!(state.evaluate(&id("u"), policy(0)), PodAction::RecheckAt(first));
    // Another list does not begin it anew, and a second deletion can only shorten it.
    Index::<SlimPod>::reset(&mut state, vec![pod("u", PodStage::Terminating)]);
    assert_eq!(end(&state), Some(first));
    for (grace, expected) in [(60, false), (1, true)] {
        let deletion = Some(Duration::from_secs(grace));
        state.apply(SlimPod { deletion, ..pod("u", PodStage::Terminating) });
        assert_eq!(end(&state) < Some(first), expected, "{grace}");
    }
    assert_eq!(state.evaluate(&id("u"), policy(31)), PodAction::None, "its kubelet is still stopping it");
    state.take_changes();
    state.apply(node(NodeReadiness::NotReady));
    assert!(state.take_changes().pods.contains(&id("u")), "the node's change marks its pods");
    assert!(
        matches!(state.evaluate(&id("u"), policy(31)), PodAction::RecheckAt(_)),
        "its agent may be alive"
    );
    assert_eq!(state.evaluate(&id("u"), policy(51)), PodAction::Free(FreeReason::Overdue));
    let additional = Policy { additional: Duration::from_mins(1), ..policy(51) };
    assert!(matches!(state.evaluate(&id("u"), additional), PodAction::RecheckAt(_)));
    for end in [NodeReadiness::OutOfService, NodeReadiness::NotReady] {
        state.apply(node(end));
    }
    state.delete(&node(NodeReadiness::NotReady));
    assert_eq!(state.evaluate(&id("u"), policy(31)), PodAction::Free(FreeReason::Overdue), "nobody runs it");
}

/// Its kubelet may have died: its agent says by a Lease which of its pods run.
#[test]
fn a_node_that_is_not_ready_while_its_agent_lives_loses_nothing() {
    let stages = [Some(PodStage::Terminating), Some(PodStage::Finished), None];
    for stage in stages {
        let pods = stage.map(|stage| pod("u", stage)).into_iter().collect();
        let mut state = cluster(pods, vec![address("10.0.0.1/24", "u")]);
        state.apply(node(NodeReadiness::NotReady));
        assert!(matches!(state.evaluate(&id("u"), policy(49)), PodAction::RecheckAt(_)), "{stage:?}");
        assert!(matches!(state.evaluate(&id("u"), policy(51)), PodAction::Free(_)), "{stage:?}");
        state.apply(lease(1, &["u"]));
        let until = state.node_leases.runs_until(&"n1".parse().unwrap(), &id("u").uid).unwrap();
        let fresh = Policy { now: until.checked_sub(Duration::from_secs(1)).unwrap(), ..policy(0) };
        let expired = Policy { now: until + Duration::from_secs(20), ..fresh };
        assert_eq!(state.evaluate(&id("u"), fresh), PodAction::RecheckAt(until), "{stage:?}");
        assert!(matches!(state.evaluate(&id("u"), expired), PodAction::Free(_)), "{stage:?}");
        // Another pod of the node does not run, and the Lease of another node says nothing.
        state.apply(lease(2, &["other"]));
        assert!(matches!(state.evaluate(&id("u"), policy(51)), PodAction::Free(_)), "{stage:?}");
    }
}

/// A kubelet that was cut off hears of the deletion only now, and grants the pod its grace period.
#[test]
fn a_forgotten_pod_of_a_node_that_is_ready_again_has_its_grace_period_before_it() {
    let mut state = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(state.evaluate(&id("u"), policy(100)), PodAction::Free(FreeReason::Gone));
    state.apply(node(NodeReadiness::NotReady));
    state.apply(lease(1, &["u"]));
    state.apply(node(NodeReadiness::Ready));
    let PodAction::RecheckAt(lease_ends) = state.evaluate(&id("u"), policy(0)) else {
        panic!("its agent has just said that it runs")
    };
    state.delete(&lease(1, &["u"]));
    let PodAction::RecheckAt(end) = state.evaluate(&id("u"), policy(0)) else {
        panic!("its kubelet stops it now")
    };
    assert!(end < lease_ends && end > Instant::now() + Duration::from_secs(30));
    assert_eq!(state.evaluate(&id("u"), policy(36)), PodAction::Free(FreeReason::Gone));
}

#[test]
fn a_node_that_is_out_of_service_is_not_waited_for() {
    let mut state = cluster(vec![], vec![address("10.0.0.1/24", "u")]);
    state.apply(node(NodeReadiness::OutOfService));
    assert!(state.take_changes().pods.contains(&id("u")));
    assert_eq!(state.evaluate(&id("u"), policy(0)), PodAction::Free(FreeReason::Gone));
}

fn stateful_set(name: &str, replicas: u32) -> SlimStatefulSet {
    let scale = StatefulSetScale { start: 0, replicas, terminating: false };
    SlimStatefulSet { namespace: "ns".into(), name: name.into(), scale }
}

fn of_stateful_set(state: AddressState) -> SlimAddress {
    address_of("10.0.0.1/24", "u", "StatefulSet", state)
}

#[test]
fn addresses_wait_for_the_next_pod_of_a_stateful_set_while_it_has_one() {
    let evaluate = |state: &ClusterState| state.evaluate(&id("u"), policy(NOW));
    let mut state = cluster(vec![], vec![of_stateful_set(AddressState::Bound)]);
    assert_eq!(evaluate(&state), PodAction::Free(FreeReason::Gone));
    state.apply(stateful_set("web", 1));
    assert!(state.take_changes().pods.contains(&id("u")));
    assert_eq!(evaluate(&state), PodAction::Keep);
    state.apply(of_stateful_set(AddressState::Kept));
    assert_eq!(evaluate(&state), PodAction::None);
    for (change, is_kept) in [(stateful_set("other", 9), true), (stateful_set("web", 0), false)] {
        state.take_changes();
        state.apply(change);
        assert_eq!(state.take_changes().pods.contains(&id("u")), !is_kept);
        assert_eq!(evaluate(&state), if is_kept { PodAction::None } else { PodAction::FreeKept });
    }
    state.apply(stateful_set("web", 1));
    state.delete(&stateful_set("web", 1));
    assert_eq!(evaluate(&state), PodAction::FreeKept);
    assert_eq!(state.addresses.kept_for(&id("u").name).count(), 1);
    // Its endpoint, which no pod owns, is of no use without it.
    state.apply(SlimEndpoint { is_owned: false, ..endpoint("u", &["10.0.0.1/24"]) });
    assert_eq!(state.unused_endpoints().count(), 0);
    state.delete(&of_stateful_set(AddressState::Kept));
    assert_eq!(state.addresses.names_with_kept().count(), 0);
    assert_eq!(state.unused_endpoints().collect::<Vec<_>>(), [id("u")]);
    state.apply(pod("u", PodStage::Alive));
    assert_eq!(state.unused_endpoints().count(), 0);
}

#[test]
fn a_stateful_sets_pod_that_runs_loses_nothing() {
    let mut state = cluster(vec![pod("u", PodStage::Alive)], vec![of_stateful_set(AddressState::Bound)]);
    state.apply(stateful_set("web", 1));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::WriteEndpoint);
}

#[test]
fn a_static_pod_keeps_its_addresses_without_its_mirror_pod() {
    let of_node = address_of("10.0.0.1/24", "u", "Node", AddressState::Bound);
    let mut state = cluster(vec![], vec![of_node]);
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
    state.delete(&node(NodeReadiness::Ready));
    assert!(state.take_changes().pods.contains(&id("u")));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone), "but not its node");
}

#[test]
fn a_terminating_endpoint_without_addresses_loses_its_finalizer() {
    let terminating = |nets: &[&str]| SlimEndpoint { is_finalizing: true, ..endpoint("u", nets) };
    let mut state = cluster(vec![pod("u", PodStage::Alive)], vec![address("10.0.0.1/24", "u")]);
    state.apply(terminating(&["10.0.0.1/24"]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None, "the address is in use");
    state.delete(&address("10.0.0.1/24", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::RestoreAddresses, "it was lost");
    state.apply(terminating(&[]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::FinalizeEndpoint);
    // Without its pod, too, also if it was made to outlive it.
    state.delete(&pod("u", PodStage::Alive));
    state.apply(SlimEndpoint { is_owned: false, ..terminating(&["10.0.0.1/24"]) });
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::FinalizeEndpoint);
    state.apply(of_stateful_set(AddressState::Kept));
    state.apply(stateful_set("web", 1));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None, "the address waits for the next pod");
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
    let mut state = cluster(vec![pod("u", PodStage::Alive)], vec![address("10.0.0.1/24", "u")]);
    state.take_changes();
    state.apply(pod("u", PodStage::Alive));
    state.apply(pod("idle", PodStage::Alive));
    state.delete(&pod("idle", PodStage::Alive));
    assert!(state.take_changes().pods.is_empty());
    state.delete(&pod("u", PodStage::Alive));
    assert!(state.take_changes().pods.contains(&id("u")));
    state.delete(&address("10.0.0.1/24", "u"));
    let changes = state.take_changes();
    assert!(changes.pods.is_empty() && changes.pools.contains("pool"));
    assert!(state.addresses.len() == 0 && state.addresses.owner(&id("u")).is_none());
}

#[test]
fn a_reallocated_address_is_removed_from_its_former_pod() {
    let mut state = cluster(vec![], vec![address("10.0.0.1/24", "old"), address("10.0.0.2/24", "old")]);
    state.apply(address("10.0.0.1/24", "new"));
    let bound =
        |uid| state.addresses.bound(&id(uid)).map(|holding| holding.ip().to_string()).collect::<Vec<_>>();
    assert_eq!((bound("old"), bound("new")), (vec!["10.0.0.2".to_owned()], vec!["10.0.0.1".to_owned()]));
    assert_eq!((state.addresses.len(), state.addresses.count("pool")), (2, 2));
}

/// An object that does not parse must never make its address free.
#[test]
fn an_unreadable_address_is_in_use_without_an_owner() {
    let unreadable = SlimAddress { holding: None, ..address("10.0.0.1/24", "u") };
    let mut state = cluster(vec![], vec![unreadable.clone()]);
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
    assert_eq!((state.addresses.count("pool"), state.addresses.of_pool("pool").count()), (1, 1));
    state.apply(address("10.0.0.1/24", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Gone), "it was repaired");
    state.apply(unreadable);
    assert!(state.addresses.owner(&id("u")).is_none());
    assert_eq!(state.addresses.count("pool"), 1);
}

#[test]
fn an_endpoint_that_lost_its_pods_uid_is_not_the_pods() {
    let mut state = ClusterState::default();
    state.apply(pod("u", PodStage::Alive));
    state.apply(address("10.0.0.1/24", "u"));
    state.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
    let emptied = SlimEndpoint { uid: None, ..endpoint("u", &[]) };
    state.apply(emptied.clone());
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::WriteEndpoint);
    state.delete(&emptied);
    assert!(state.endpoints.pods().next().is_none());
}

#[test]
fn an_address_that_an_endpoint_names_and_nobody_holds_is_restored() {
    let mut state = ClusterState::default();
    state.apply(pod("u", PodStage::Alive));
    state.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::RestoreAddresses);
    state.apply(address("10.0.0.1/24", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None);
    // It waits for the next pod of the name, or is quarantined: its object is there.
    for held in [AddressState::Kept, AddressState::Quarantined] {
        state.apply(address_of("10.0.0.1/24", "u", "StatefulSet", held));
        assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::None, "{held:?}");
    }
    state.delete(&address("10.0.0.1/24", "u"));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::RestoreAddresses);
    state.apply(pod("u", PodStage::Terminating));
    assert!(!matches!(state.evaluate(&id("u"), policy(NOW)), PodAction::RestoreAddresses));
    state.apply(pod("u", PodStage::Finished));
    assert_eq!(state.evaluate(&id("u"), policy(NOW)), PodAction::Free(FreeReason::Finished));
}

/// Until so many seconds from now.
fn quarantined(net: &str, seconds: u64) -> SlimAddress {
    let mut address = address_of(net, "u", "Deployment", AddressState::Quarantined);
    let holding = address.holding.as_mut().unwrap();
    let until = SystemTime::now() + Duration::from_secs(seconds);
    holding.node = None;
    holding.quarantine = Some(Box::new(Quarantine { by: "02:00:00:00:00:07".parse().unwrap(), until }));
    address
}

#[test]
fn a_quarantined_address_is_freed_when_its_time_is_over_and_never_earlier() {
    let addresses = vec![quarantined("10.0.0.2/24", 600), quarantined("10.0.0.3/24", 900)];
    let gone = cluster(vec![], addresses.clone());
    let mut alive = cluster(vec![pod("u", PodStage::Alive)], addresses);
    alive.apply(address("10.0.0.1/24", "u"));
    alive.apply(endpoint("u", &["10.0.0.1/24"]));
    for state in [&gone, &alive] {
        let PodAction::RecheckAt(at) = state.evaluate(&id("u"), policy(0)) else { panic!("not now") };
        let left = at.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(590) && left <= Duration::from_mins(10), "{left:?}");
        assert!(matches!(state.evaluate(&id("u"), policy(590)), PodAction::RecheckAt(_)));
        assert_eq!(state.evaluate(&id("u"), policy(601)), PodAction::FreeQuarantined);
    }
    // Whatever else there is to do comes first.
    alive.apply(address("fd00::1/64", "u"));
    assert_eq!(alive.evaluate(&id("u"), policy(601)), PodAction::WriteEndpoint);
    // Nobody has said until when.
    let mut forever = quarantined("10.0.0.2/24", 0);
    forever.holding.as_mut().unwrap().quarantine = None;
    assert_eq!(cluster(vec![], vec![forever]).evaluate(&id("u"), policy(NOW)), PodAction::None);
}

#[test]
fn what_is_quarantined_keeps_neither_an_endpoint_nor_a_pool_from_being_deleted() {
    let mut state = cluster(vec![pod("u", PodStage::Alive)], vec![quarantined("10.0.0.2/24", 600)]);
    state.apply(SlimEndpoint { is_owned: false, is_finalizing: true, ..endpoint("u", &[]) });
    assert_eq!(state.evaluate(&id("u"), policy(0)), PodAction::FinalizeEndpoint);
    assert!(!state.addresses.is_in_use("pool"));
    assert_eq!(state.addresses.count("pool"), 1, "but nobody gets it");
    state.apply(address("10.0.0.1/24", "u"));
    assert!(state.addresses.is_in_use("pool"));
}

fn machine(name: &str, terminating: bool, of_machine: bool) -> SlimMachine {
    let life = MachineLife { terminating, of_machine };
    SlimMachine { namespace: "ns".into(), name: name.into(), life }
}

/// An address of a pod of the virtual machine `db`, which has another name than the others here.
fn of_machine(net: &str, uid: &str, state: AddressState) -> SlimAddress {
    let mut address = address_of(net, uid, "VirtualMachineInstance", state);
    let holding = address.holding.as_mut().unwrap();
    holding.owner = Arc::new(Owner {
        pod: launcher(uid),
        virtual_machine: Some("db".into()),
        ..(*holding.owner).clone()
    });
    address
}

fn launcher(uid: &str) -> PodIdentity {
    let name = PodName::new("ns", format!("virt-launcher-db-{uid}")).unwrap();
    PodIdentity { name, uid: uid.parse().unwrap() }
}

fn launcher_pod(uid: &str, stage: PodStage, moved: bool) -> SlimPod {
    let moved_machine = moved.then(|| PodName::new("ns", "db").unwrap());
    SlimPod { identity: Some(launcher(uid)), moved_machine, ..pod(uid, stage) }
}

fn machine_endpoint(uid: &str, nets: &[&str]) -> SlimEndpoint {
    let name = PodName::new("ns", "db").unwrap();
    let pod = Some(launcher(uid).name);
    SlimEndpoint { name: Some(name), pod, is_of_machine: true, is_owned: false, ..endpoint(uid, nets) }
}

#[test]
fn addresses_wait_for_the_next_pod_of_a_virtual_machine_while_there_is_the_machine() {
    use MachineKind::{Instance, Machine};
    let evaluate = |state: &ClusterState| state.evaluate(&launcher("u"), policy(NOW));
    let mut state = cluster(vec![], vec![of_machine("10.0.0.1/24", "u", AddressState::Bound)]);
    assert!(state.addresses.has_virtual_machines());
    assert_eq!(evaluate(&state), PodAction::Keep, "nobody knows which machines there are");
    for kind in [Machine, Instance] {
        state.take_changes();
        state.reset_machines(kind, Some(&[]));
        assert!(state.take_changes().pods.contains(&launcher("u")));
    }
    assert_eq!(evaluate(&state), PodAction::Free(FreeReason::Gone));
    state.apply_machine(Instance, &machine("db", false, false));
    assert!(state.take_changes().pods.contains(&launcher("u")));
    assert_eq!(evaluate(&state), PodAction::Keep);
    state.apply_machine(Instance, &machine("db", true, true));
    assert_eq!(evaluate(&state), PodAction::Free(FreeReason::Gone));
    // Stopped: there is no instance.
    state.apply_machine(Machine, &machine("db", false, false));
    state.delete_machine(Instance, &machine("db", true, true));
    assert_eq!(evaluate(&state), PodAction::Keep);
    state.apply(of_machine("10.0.0.1/24", "u", AddressState::Kept));
    assert_eq!(evaluate(&state), PodAction::None);
    state.take_changes();
    state.apply_machine(Machine, &machine("other", true, false));
    assert!(state.take_changes().pods.is_empty());
    state.delete_machine(Machine, &machine("db", false, false));
    assert!(state.take_changes().pods.contains(&launcher("u")));
    assert_eq!(evaluate(&state), PodAction::FreeKept);
    state.reset_machines(Machine, None);
    assert_eq!(evaluate(&state), PodAction::None, "the kind is not served any more");
    let off = Policy { kept: KeptWorkloads::default(), ..policy(NOW) };
    assert_eq!(state.evaluate(&launcher("u"), off), PodAction::FreeKept);
    state.delete(&of_machine("10.0.0.1/24", "u", AddressState::Kept));
    assert!(!state.addresses.has_virtual_machines());
}

#[test]
fn what_a_moved_machine_has_left_is_handed_over_to_a_pod_that_lives_and_lacks_it() {
    let evaluate = |state: &ClusterState| state.evaluate(&launcher("u"), policy(NOW));
    let mut state = cluster(vec![], vec![of_machine("10.0.0.1/24", "u", AddressState::Kept)]);
    state.apply(machine_endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(evaluate(&state), PodAction::None);
    state.apply(launcher_pod("next", PodStage::Alive, false));
    assert_eq!(evaluate(&state), PodAction::None, "it takes over what it is to have by itself");
    state.take_changes();
    state.apply(launcher_pod("v", PodStage::Alive, true));
    assert!(state.take_changes().pods.contains(&launcher("u")));
    assert_eq!(evaluate(&state), PodAction::HandOver);
    let off = Policy { kept: KeptWorkloads::default(), ..policy(NOW) };
    assert_eq!(state.evaluate(&launcher("u"), off), PodAction::HandOver, "the pod may use it");
    state.apply(of_machine("10.0.0.2/24", "v", AddressState::Bound));
    assert_eq!(evaluate(&state), PodAction::None, "it has another one");
    assert_eq!(state.evaluate(&launcher("v"), policy(NOW)), PodAction::WriteEndpoint, "that of the old pod");
    state.delete(&of_machine("10.0.0.2/24", "v", AddressState::Bound));
    state.take_changes();
    state.apply(launcher_pod("v", PodStage::Finished, true));
    assert_eq!(evaluate(&state), PodAction::None);
    assert!(state.take_changes().pods.contains(&launcher("u")));
    assert_eq!(state.evaluate(&launcher("u"), off), PodAction::FreeKept);
    state.delete(&launcher_pod("v", PodStage::Finished, true));
    assert_eq!(evaluate(&state), PodAction::None);
}

/// While both run, the endpoint is the source's: they would write it in turns.
#[test]
fn a_pod_that_a_machine_moves_to_has_no_endpoint_yet() {
    let pods = vec![launcher_pod("u", PodStage::Alive, false), launcher_pod("v", PodStage::Alive, true)];
    let own = of_machine("10.0.0.2/24", "v", AddressState::Bound);
    let mut state = cluster(pods, vec![of_machine("10.0.0.1/24", "u", AddressState::Bound), own]);
    state.apply(machine_endpoint("u", &["10.0.0.1/24"]));
    for uid in ["u", "v"] {
        assert_eq!(state.evaluate(&launcher(uid), policy(NOW)), PodAction::None, "{uid}");
    }
    assert_eq!(state.endpoints.pods().collect::<Vec<_>>(), [launcher("u")]);
    state.delete(&of_machine("10.0.0.1/24", "u", AddressState::Bound));
    assert_eq!(state.evaluate(&launcher("u"), policy(NOW)), PodAction::RestoreAddresses, "it was lost");
    state.apply(launcher_pod("u", PodStage::Finished, false));
    assert_eq!(state.evaluate(&launcher("v"), policy(NOW)), PodAction::WriteEndpoint);
    state.delete(&machine_endpoint("u", &[]));
    assert_eq!(state.endpoint_name(&launcher("u")), launcher("u").name);
    assert_eq!(state.endpoint_name(&launcher("v")).to_string(), "ns/db", "by its addresses");
}

/// Whoever may create pods may give one the name of a machine.
#[test]
fn a_pod_and_a_machine_of_one_name_do_not_write_over_each_others_endpoint() {
    let named = PodIdentity { name: PodName::new("ns", "db").unwrap(), uid: "w".parse().unwrap() };
    let mut own = address("10.0.0.3/24", "w");
    let holding = own.holding.as_mut().unwrap();
    holding.owner = Arc::new(Owner { pod: named.clone(), ..(*holding.owner).clone() });
    let alive = SlimPod { identity: Some(named.clone()), ..pod("w", PodStage::Alive) };
    let pods = vec![launcher_pod("u", PodStage::Alive, false), alive];
    let mut state = cluster(pods, vec![of_machine("10.0.0.1/24", "u", AddressState::Bound), own]);
    state.apply(machine_endpoint("u", &["10.0.0.1/24"]));
    for pod in [&launcher("u"), &named] {
        assert_eq!(state.evaluate(pod, policy(NOW)), PodAction::None, "{}", pod.name);
    }
    // The pod was first.
    state.apply(SlimEndpoint { name: Some(named.name.clone()), ..endpoint("w", &["10.0.0.3/24"]) });
    for pod in [&launcher("u"), &named] {
        assert_eq!(state.evaluate(pod, policy(NOW)), PodAction::None, "{}", pod.name);
    }
    state.delete(&SlimEndpoint { name: Some(named.name.clone()), ..endpoint("w", &[]) });
    for pod in [&launcher("u"), &named] {
        assert_eq!(state.evaluate(pod, policy(NOW)), PodAction::WriteEndpoint, "{}", pod.name);
    }
}
