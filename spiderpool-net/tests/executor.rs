//! Plans against the real kernel, in namespaces of their own: applied, rolled back, read.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use ipnet::IpNet;
use spiderpool_core::coordinator::{Namespace, NamespaceState, Step};
use spiderpool_core::ip::Family;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Neighbor, Route, Rule, Selector};
use spiderpool_net::block_on;
use spiderpool_net::executor::{Executor, MissingDevice, StepError};
use spiderpool_net::netlink::NetlinkError;
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;
use spiderpool_net::sysctl;

const HOST_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const POD_MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// Runs `test` in a node of its own, with a pod.
fn in_a_node(test: impl AsyncFnOnce(&NetNs) + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    let run = async || {
        test(&NetNs::create().unwrap()).await;
        Ok::<_, NetlinkError>(())
    };
    NetNs::create().unwrap().run(|| block_on(run())).unwrap().unwrap();
}

fn node_link() -> Step {
    Step::AddNodeLink {
        host: name("host"),
        host_mac: HOST_MAC,
        pod: name("sp0"),
        pod_mac: POD_MAC,
        mtu: 1400,
    }
}

fn up(namespace: Namespace, dev: &str) -> Step {
    Step::SetUp { namespace, dev: name(dev) }
}

fn rp_filter(namespace: Namespace, value: u8) -> Step {
    Step::SetSysctl { namespace, key: "net/ipv4/conf/default/rp_filter".to_owned(), value: value.to_string() }
}

fn neighbor(dev: &str, address: &str) -> Neighbor {
    Neighbor { dev: name(dev), address: address.parse().unwrap(), mac: HOST_MAC }
}

/// Both namespaces, without the link-local addresses that the kernel makes when it gets round to it.
async fn read(executor: &mut Executor<'_>) -> [NamespaceState; 2] {
    let mut both = [NamespaceState::default(), NamespaceState::default()];
    for (namespace, state) in [Namespace::Pod, Namespace::Node].into_iter().zip(&mut both) {
        *state = executor.netlink(namespace).snapshot(Contents::ALL).await.unwrap();
        state.addresses.retain(|address| !net("fe80::/10").contains(&address.net));
        state.routes.retain(|route| !net("fe80::/10").contains(&route.dst));
    }
    both
}

#[test]
fn every_kind_of_step_is_applied_and_rolled_back() {
    in_a_node(async |pod| {
        let mut setup = Executor::new(pod, MissingDevice::Fail).unwrap();
        setup.apply(&[node_link(), up(Namespace::Pod, "sp0"), up(Namespace::Node, "host")]).await.unwrap();
        let address = Step::AddAddress { dev: name("sp0"), net: net("10.6.0.5/16") };
        let old = Route { metric: 7, ..Route::new(net("10.7.0.0/16"), name("sp0")) };
        setup
            .apply(&[address, Step::AddRoute { namespace: Namespace::Pod, route: old.clone() }])
            .await
            .unwrap();

        let mut executor = Executor::new(pod, MissingDevice::Fail).unwrap();
        let before = read(&mut executor).await;
        let (mac, before_mac) = (MacAddr([2, 9, 9, 9, 9, 9]), Some(POD_MAC));
        let length_before = before[0].link(&name("sp0")).unwrap().tx_queue_len;
        let to = |dst: &str, dev: &str| Route::new(net(dst), name(dev));
        let in_table = Route { table: 500, ..to("10.6.0.5/32", "host") };
        let rule = Rule::new(Family::V4, 1000, Selector::All, 500);
        let steps = [
            rp_filter(Namespace::Pod, 2),
            rp_filter(Namespace::Node, 2),
            Step::SetMac { dev: name("sp0"), mac, before: before_mac },
            Step::SetTxQueueLen { dev: name("sp0"), length: 77, before: length_before },
            Step::AddAddress { dev: name("sp0"), net: net("fd00:6::5/64") },
            Step::SetNeighbor { namespace: Namespace::Pod, neighbor: neighbor("sp0", "10.6.0.1") },
            Step::SetNeighbor { namespace: Namespace::Node, neighbor: neighbor("host", "fd00:6::5") },
            Step::AddRoute { namespace: Namespace::Pod, route: to("10.96.0.0/12", "sp0") },
            Step::ReplaceRoute { namespace: Namespace::Node, route: to("10.6.0.5/32", "host") },
            Step::RestoreRoute { namespace: Namespace::Pod, route: to("10.8.0.0/16", "sp0") },
            Step::DeleteRoute { namespace: Namespace::Pod, route: old },
            Step::AddRoute { namespace: Namespace::Node, route: in_table.clone() },
            Step::AddRule { namespace: Namespace::Pod, rule },
            Step::AddRule { namespace: Namespace::Node, rule },
            Step::AddNodeLink {
                host: name("host2"),
                host_mac: MacAddr([2, 0, 0, 0, 0, 3]),
                pod: name("sp1"),
                pod_mac: MacAddr([2, 0, 0, 0, 0, 4]),
                mtu: 1500,
            },
            up(Namespace::Pod, "sp1"),
        ];
        executor.apply(&steps).await.unwrap();
        let [in_pod, on_node] = read(&mut executor).await;
        let sp0 = in_pod.link(&name("sp0")).unwrap();
        assert_eq!((sp0.mac, sp0.tx_queue_len), (Some(mac), 77));
        assert!(in_pod.link(&name("sp1")).unwrap().up);
        assert_eq!((in_pod.neighbors.len(), on_node.neighbors.len()), (1, 1));
        let ours = |routes: &[Route]| -> Vec<String> {
            routes.iter().filter(|route| route.is_ours()).map(|route| route.dst.to_string()).collect()
        };
        assert_eq!(ours(&in_pod.routes), ["10.8.0.0/16", "10.96.0.0/12"]);
        assert_eq!(ours(&on_node.routes), ["10.6.0.5/32"]);
        assert_eq!(on_node.table_routes, [in_table]);
        assert!(in_pod.rules.contains(&rule) && on_node.rules.contains(&rule));

        assert!(executor.roll_back().await.is_empty());
        assert_eq!(read(&mut executor).await, before);
        let value = || sysctl::read("net/ipv4/conf/default/rp_filter").unwrap();
        assert_eq!((value(), pod.run(value).unwrap()), ("0".to_owned(), "0".to_owned()));
        // Nothing is left to be rolled back.
        assert!(executor.roll_back().await.is_empty());
        let delete = Step::DeleteNodeLink { host: name("host") };
        let down = Step::SetDown { namespace: Namespace::Pod, dev: name("sp0") };
        let address = Step::DeleteAddress { dev: name("sp0"), net: net("10.6.0.5/16") };
        let gone = Step::DeleteNeighbor { namespace: Namespace::Pod, neighbor: neighbor("sp0", "10.6.0.1") };
        executor.apply(&[gone, address, down, delete]).await.unwrap();
        assert_eq!(read(&mut executor).await[0].links.len(), 1);
    });
}

#[test]
fn a_missing_device_is_an_error_or_nothing() {
    in_a_node(async |pod| {
        let steps = [up(Namespace::Pod, "nosuch"), up(Namespace::Pod, "lo")];
        let mut executor = Executor::new(pod, MissingDevice::Fail).unwrap();
        let error = executor.apply(&steps).await.unwrap_err();
        assert!(matches!(error.source, StepError::NoDevice(_)), "{error}");
        assert_eq!(error.to_string(), "pod: link set nosuch up: device nosuch is gone");
        let lo = async |executor: &mut Executor<'_>| {
            let netlink = executor.netlink(Namespace::Pod);
            netlink.link_by_name(&name("lo")).await.unwrap().unwrap().up
        };
        assert!(!lo(&mut executor).await, "what comes after a failure is not applied");
        let mut executor = Executor::new(pod, MissingDevice::Skip).unwrap();
        executor.apply(&steps).await.unwrap();
        assert!(lo(&mut executor).await);
        assert!(executor.roll_back().await.is_empty(), "what was skipped is not rolled back");
        assert!(!lo(&mut executor).await);
    });
}

#[test]
fn rolling_back_goes_on_after_a_failure() {
    in_a_node(async |pod| {
        let mut executor = Executor::new(pod, MissingDevice::Fail).unwrap();
        let steps =
            [up(Namespace::Pod, "lo"), node_link(), rp_filter(Namespace::Pod, 2), up(Namespace::Pod, "sp0")];
        executor.apply(&steps).await.unwrap();
        executor.netlink(Namespace::Node).delete_link(&name("host")).await.unwrap();
        let failures = executor.roll_back().await;
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].step.to_string(), "pod: link set sp0 down");
        assert!(failures[0].to_string().contains("No such device"), "{}", failures[0]);
        let netlink = executor.netlink(Namespace::Pod);
        assert!(!netlink.link_by_name(&name("lo")).await.unwrap().unwrap().up);
    });
}

#[test]
fn a_snapshot_holds_what_was_asked_for() {
    in_a_node(async |pod| {
        let mut executor = Executor::new(pod, MissingDevice::Fail).unwrap();
        let steps = [
            node_link(),
            up(Namespace::Node, "host"),
            up(Namespace::Pod, "sp0"),
            up(Namespace::Pod, "lo"),
            Step::AddAddress { dev: name("sp0"), net: net("10.6.0.5/16") },
            Step::SetNeighbor { namespace: Namespace::Pod, neighbor: neighbor("sp0", "10.6.0.1") },
        ];
        executor.apply(&steps).await.unwrap();
        let netlink = executor.netlink(Namespace::Pod);
        let counts = |namespace: &NamespaceState| {
            let own = namespace.addresses.iter().filter(|address| address.net == net("10.6.0.5/16")).count();
            let routes = namespace.routes.iter().filter(|route| route.dst == net("10.6.0.0/16")).count();
            (namespace.links.len(), own, routes, namespace.neighbors.len())
        };
        assert_eq!(counts(&netlink.snapshot(Contents::default()).await.unwrap()), (2, 0, 0, 0));
        assert_eq!(counts(&netlink.snapshot(Contents::ALL).await.unwrap()), (2, 1, 1, 1));
        let (sp0, lo, nosuch) = (name("sp0"), name("lo"), name("nosuch"));
        let named = netlink.snapshot_of(&[&sp0, &nosuch], Contents::ALL).await.unwrap();
        assert_eq!(counts(&named), (1, 1, 1, 1));
        assert_eq!(counts(&netlink.snapshot_of(&[&lo], Contents::ALL).await.unwrap()), (1, 0, 0, 0));
    });
}
