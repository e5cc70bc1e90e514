//! What looks at running pods find, and what they leave alone.

use std::process::Command;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use super::*;
use crate::node_events::NodeEvent;

const OTHER: &str = "10.6.0.10";

/// A node with one pod that has node link and `net1`, and maybe a further NIC that is only registered.
struct Node {
    reconciler: Reconciler,
    netns: NetNs,
    link: NodeLink,
    said: Receiver<NodeEvent>,
    now: Instant,
    folder: tempfile::TempDir,
}

impl Node {
    fn new(further: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let netns = NetNs::create().unwrap();
        let first = block_on(pod_with_node_link(&netns)).unwrap();
        let identity = netns::identity(&netns).unwrap();
        let mut pods = vec![(first.clone(), identity)];
        if let Some(name) = further {
            let mut second = first.clone();
            second.attachment.if_name = name.parse().unwrap();
            let address = format!("{OTHER}/16");
            second.nics.push(Nic { ifindex: 99, ..nic(name, NicRole::Underlay, &[&address]) });
            pods.push((second, identity));
        }
        let (events, said) = NodeEvents::new();
        let mut reconciler = without_maps(folder.path(), &pods);
        reconciler.events = events;
        reconciler.resync();
        reconciler.update(Update { cluster: None, nodes: Some(vec!["10.6.0.1".parse().unwrap()]) });
        let (link, now) = (NodeLink::new("runs").unwrap(), Instant::now());
        Self { reconciler, netns, link, said, now, folder }
    }

    fn look_after(&mut self, pause: Duration) {
        self.now += pause;
        self.reconciler.begin_sweep(self.now);
        self.reconciler.check_next(self.now);
    }

    fn ip(&self, arguments: &str) {
        let arguments = arguments.split(' ');
        let status = self.netns.run(|| Command::new("ip").args(arguments).status()).unwrap().unwrap();
        assert!(status.success());
    }

    /// Where the host end's routes and neighbors lead to.
    fn leads_to(&self) -> Vec<String> {
        let led_to = async {
            let present = Netlink::open()?.snapshot_of(&[&self.link.host], Contents::PLAIN).await?;
            let routes = present.routes.iter().filter(|route| route.is_ours());
            let mut led_to: Vec<_> = routes.map(|route| route.dst.addr().to_string()).collect();
            led_to.extend(present.neighbors.iter().map(|neighbor| neighbor.address.to_string()));
            led_to.sort();
            Ok::<_, NetlinkError>(led_to)
        };
        block_on(led_to).unwrap()
    }

    fn forget_neighbor(&self, address: &str) {
        let delete = async {
            let mut node = Netlink::open()?;
            let index = node.link_by_name(&self.link.host).await?.unwrap().index;
            node.delete_neighbor(index, address.parse().unwrap()).await
        };
        block_on(delete).unwrap();
    }

    fn notes(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.said.try_recv().ok()).map(|event| format!("{event:?}")).collect()
    }
}

fn in_a_node(test: impl FnOnce() + Send) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("skipped: needs root");
        return;
    }
    NetNs::create().unwrap().run(test).unwrap();
}

const SWEEP: Duration = Duration::from_secs(5);

/// The look had found the pod whole: what it puts back comes behind what the DEL has removed.
#[test]
fn what_a_look_puts_back_behind_a_del_goes_with_the_registration() {
    in_a_node(|| {
        let mut node = Node::new(Some("net2"));
        let both = [OTHER, OTHER, UNDERLAY, UNDERLAY];
        assert_eq!(node.leads_to(), both);
        // The DEL's part in the node's namespace, and a look at what it found before.
        node.forget_neighbor(OTHER);
        node.look_after(SWEEP);
        assert_eq!(node.leads_to(), both);
        let net2 = Attachment { if_name: "net2".parse().unwrap(), ..attachment("runs") };
        node.reconciler.unregister(&net2).unwrap();
        assert_eq!(node.leads_to(), [UNDERLAY, UNDERLAY]);
        node.reconciler.unregister(&attachment("runs")).unwrap();
        assert_eq!(node.leads_to(), <[&str; 0]>::default());
    });
}

/// KubeVirt's bridge binding.
#[test]
fn a_nic_that_was_renamed_in_the_pod_is_not_gone() {
    in_a_node(|| {
        let mut node = Node::new(None);
        node.look_after(SWEEP);
        drop(node.notes());
        node.ip("link set net1 down");
        node.ip("link set net1 name net1-nic address 02:00:00:00:00:77");
        node.ip("link set net1-nic up");
        node.ip(&format!("address del {UNDERLAY}/16 dev net1-nic"));
        node.ip("link add net1 type veth peer name other");
        node.ip(&format!("address add {UNDERLAY}/16 dev net1"));
        node.forget_neighbor(UNDERLAY);
        node.look_after(SWEEP);
        assert_eq!(node.leads_to(), [UNDERLAY, UNDERLAY], "the pod is looked at");
        assert_eq!(node.notes(), <[&str; 0]>::default());
        node.ip("link del net1-nic");
        node.look_after(SWEEP);
        assert_eq!(node.notes().len(), 1);
    });
}

/// By a process with `NET_ADMIN`: 10,000 routes, or addresses.
#[test]
fn a_pod_with_too_many_routes_is_left_out_and_said_once() {
    in_a_node(|| {
        let mut node = Node::new(None);
        node.look_after(SWEEP);
        drop(node.notes());
        let file = node.folder.path().join("routes");
        let add = |i: u32| format!("route add 172.16.{}.{}/32 dev net1\n", i / 250, i % 250);
        fs::write(&file, (0..5000).map(add).collect::<Vec<_>>().concat()).unwrap();
        node.ip(&format!("-batch {}", file.display()));
        node.forget_neighbor(UNDERLAY);
        for _ in 0..3 {
            node.look_after(SWEEP);
        }
        let notes = node.notes();
        assert!(notes.len() == 1 && notes[0].contains("PodNetworkTooLarge"), "{notes:?}");
        assert_eq!(node.leads_to(), [UNDERLAY], "nothing was done");
        node.ip("route flush root 172.16.0.0/12");
        node.look_after(Duration::from_secs(590));
        assert_eq!(node.leads_to(), [UNDERLAY, UNDERLAY]);
    });
}

/// The plugin takes a NIC's addresses first. One that died behind that must not end the care for the pod.
#[test]
fn a_pod_in_removal_is_left_alone_for_a_minute_and_its_other_nics_are_kept_right_afterwards() {
    in_a_node(|| {
        let mut node = Node::new(Some("net2"));
        node.look_after(SWEEP);
        node.ip(&format!("address del {UNDERLAY}/16 dev net1"));
        node.forget_neighbor(UNDERLAY);
        node.forget_neighbor(OTHER);
        node.look_after(SWEEP);
        node.look_after(Duration::from_secs(59));
        assert_eq!(node.leads_to(), [OTHER, UNDERLAY], "the DEL may go on");
        node.look_after(SWEEP);
        assert_eq!(node.leads_to(), [OTHER, OTHER, UNDERLAY], "another pod may have its address");
    });
}
