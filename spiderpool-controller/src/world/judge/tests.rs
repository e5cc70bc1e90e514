use spiderpool_runtime::watch::Index;

use super::super::slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};
use super::*;

fn clock(now: &str) -> Clock {
    Clock {
        now: now.parse().unwrap(),
        additional: Duration::ZERO,
        rules: OverdueRules { on_ready_nodes: true, on_dead_nodes: true },
    }
}

/// Long after the pods were listed, and vanished.
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

fn world(pods: Vec<SlimPod>, addresses: Vec<SlimAddress>) -> World {
    let mut world = World::default();
    world.reset(pods);
    world.reset(addresses);
    world.reset(vec![SlimNode { name: "n1".into(), is_ready: true }]);
    world
}

#[test]
fn a_pod_that_runs_keeps_all_and_gets_the_endpoint_that_a_dead_agent_did_not_write() {
    let mut world = world(vec![pod("u", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::WriteEndpoint);
    world.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::Fine);
    world.apply(address("fd00::1/64", "u"));
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::WriteEndpoint);
    // A second address for the NIC and family is surplus: its agent frees it.
    world.apply(endpoint("u", &["10.0.0.1/24", "fd00::1/64"]));
    world.apply(address("10.0.0.2/24", "u"));
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::Fine);
}

#[test]
fn what_is_gone_replaced_or_finished_is_freed() {
    let gone = world(vec![], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(gone.judge(&id("u"), clock(NOW)), Verdict::Free(Cause::Gone));
    let replaced = world(vec![pod("other", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(replaced.judge(&id("u"), clock(NOW)), Verdict::Free(Cause::Gone));
    assert_eq!(replaced.judge(&id("other"), clock(NOW)), Verdict::Fine, "it holds nothing");
    let finished = world(vec![pod("u", Stage::Finished)], vec![address("10.0.0.1/24", "u")]);
    assert_eq!(finished.judge(&id("u"), clock(NOW)), Verdict::Free(Cause::Finished));
}

/// As `kubectl delete --force` does it: the API server forgets the pod before its kubelet has heard of it.
#[test]
fn a_pod_that_vanishes_while_it_runs_keeps_all_for_its_grace_period() {
    let running = SlimPod { may_run_for: Some(Duration::from_secs(35)), ..pod("u", Stage::Alive) };
    let now = || Clock { now: Timestamp::now(), ..clock(NOW) };
    let after = || Clock { now: now().now + SignedDuration::from_secs(36), ..now() };
    let mut seen = world(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    seen.delete(&running);
    let mut missed = world(vec![running.clone()], vec![address("10.0.0.1/24", "u")]);
    Index::<SlimPod>::reset(&mut missed, vec![pod("other", Stage::Alive)]);
    for world in [&mut seen, &mut missed] {
        assert!(matches!(world.judge(&id("u"), now()), Verdict::Later(_)));
        assert_eq!(world.judge(&id("u"), after()), Verdict::Free(Cause::Gone));
        world.delete(&SlimNode { name: "n1".into(), is_ready: true });
        assert_eq!(world.judge(&id("u"), now()), Verdict::Free(Cause::Gone), "nobody runs it");
    }
    let mut stopped = world(vec![pod("u", Stage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    stopped.delete(&pod("u", Stage::Terminating));
    assert_eq!(stopped.judge(&id("u"), clock(NOW)), Verdict::Free(Cause::Gone));
    let stranger = world(vec![], vec![address("10.0.0.1/24", "u")]);
    assert!(matches!(stranger.judge(&id("u"), now()), Verdict::Later(_)), "it may have vanished just before");
    assert_eq!(stranger.judge(&id("u"), after()), Verdict::Free(Cause::Gone));
}

/// Upstream waits the grace period twice.
#[test]
fn a_grace_period_is_waited_for_once_and_ends_on_a_dead_node() {
    let mut world = world(vec![pod("u", Stage::Terminating)], vec![address("10.0.0.1/24", "u")]);
    let end: Timestamp = "2100-01-01T00:01:30Z".parse().unwrap();
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::Later(end));
    let after = clock("2100-01-01T00:01:30Z");
    assert_eq!(world.judge(&id("u"), after), Verdict::Fine, "its kubelet is at work");
    world.take_changes();
    world.apply(SlimNode { name: "n1".into(), is_ready: false });
    assert!(world.take_changes().pods.contains(&id("u")), "its node's death is news of the pod");
    assert_eq!(world.judge(&id("u"), after), Verdict::Free(Cause::Overdue));
    world.delete(&SlimNode { name: "n1".into(), is_ready: false });
    assert_eq!(world.judge(&id("u"), after), Verdict::Free(Cause::Overdue));
    let additional = Clock { additional: Duration::from_mins(1), ..after };
    assert!(matches!(world.judge(&id("u"), additional), Verdict::Later(_)));
}

#[test]
fn an_address_that_is_not_bound_is_not_freed() {
    let kept = SlimAddress { is_bound: false, ..address("10.0.0.1/24", "u") };
    assert_eq!(world(vec![], vec![kept]).judge(&id("u"), clock(NOW)), Verdict::Fine);
}

#[test]
fn a_static_pod_outlives_its_mirror() {
    let of_node = SlimAddress { owner_kind: "Node".into(), ..address("10.0.0.1/24", "u") };
    assert_eq!(world(vec![], vec![of_node]).judge(&id("u"), clock(NOW)), Verdict::Fine);
}

/// Upstream cleans these only with a switch that is off by default.
#[test]
fn an_endpoint_without_pod_is_removed_unless_it_was_made_to_outlive_it() {
    let mut world = world(vec![], vec![]);
    world.apply(endpoint("u", &["10.0.0.1/24"]));
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::Free(Cause::Gone));
    world.apply(SlimEndpoint { is_owned: false, ..endpoint("u", &["10.0.0.1/24"]) });
    assert_eq!(world.judge(&id("u"), clock(NOW)), Verdict::Fine);
}

#[test]
fn only_news_of_pods_that_hold_something_is_looked_at() {
    let mut world = world(vec![pod("u", Stage::Alive)], vec![address("10.0.0.1/24", "u")]);
    world.take_changes();
    world.apply(pod("u", Stage::Alive));
    world.apply(pod("idle", Stage::Alive));
    world.delete(&pod("idle", Stage::Alive));
    assert!(world.take_changes().pods.is_empty());
    world.delete(&pod("u", Stage::Alive));
    assert!(world.take_changes().pods.contains(&id("u")));
    world.delete(&address("10.0.0.1/24", "u"));
    let changes = world.take_changes();
    assert!(changes.pods.is_empty() && changes.pools.contains("pool"));
    assert!(world.addresses.is_empty() && world.addresses.holder(&id("u")).is_none());
}

#[test]
fn an_address_that_goes_to_another_pod_is_no_longer_the_first_ones() {
    let mut world = world(vec![], vec![address("10.0.0.1/24", "old"), address("10.0.0.2/24", "old")]);
    world.apply(address("10.0.0.1/24", "new"));
    assert_eq!(world.addresses.bound(&id("old")), ["10.0.0.2".parse::<std::net::IpAddr>().unwrap()]);
    assert_eq!(world.addresses.bound(&id("new")).len(), 1);
    assert_eq!((world.addresses.len(), world.addresses.count("pool")), (2, 2));
}
