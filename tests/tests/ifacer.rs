//! The plugin ifacer on a node's interfaces, without agent and control plane. Runs on kernels that have VLANs and bonds, which
//! `cargo xtask vmtest` brings; iproute2 says what came of it.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use spiderpool_net::netns::NetNs;
use spiderpool_tests::cni::{Attachment, Failure, Network, execute};
use spiderpool_tests::link_kinds::{LinkKind, known_or_skip};
use spiderpool_tests::machine::Machine;
use spiderpool_tests::namespaces::Namespaces;
use spiderpool_tests::probe::{Probe, Protocol, Server, send};
use spiderpool_tests::state_dir::StateDir;
use spiderpool_tests::{poll, privilege};

fn can_run(test: &str) -> bool {
    privilege::root_or_skip(test) && known_or_skip(test, &[LinkKind::Vlan, LinkKind::Bond]).unwrap()
}

/// A node with the NICs eth1 and eth2, and a sandbox.
struct Host {
    machine: Machine,
    _state: StateDir,
}

impl Host {
    fn start(name: &str) -> Self {
        let state = StateDir::create().unwrap();
        let machine = Machine::start(name, &state).unwrap();
        machine
            .ip("link add eth1 type veth peer name far1
                link add eth2 type veth peer name far2
                link set far1 up
                link set far2 up
                link set eth1 up
                link set eth2 up")
            .unwrap();
        machine.output("ip", &["netns", "add", "sandbox"]).unwrap();
        Self { machine, _state: state }
    }

    fn ip(&self, script: &str) {
        self.machine.ip(script).unwrap();
    }

    fn sandbox_ip(&self, script: &str) {
        self.machine.with_network("sandbox", "/run/netns/sandbox".as_ref()).ip(script).unwrap();
    }

    /// As `ip -d link show` has it; null where there is none.
    fn link(&self, name: &str) -> Value {
        let shown = self.machine.output("ip", &["-d", "-j", "link", "show", name]);
        shown.map_or(Value::Null, |text| serde_json::from_str::<Value>(&text).unwrap()[0].clone())
    }

    fn names(&self) -> Vec<String> {
        let shown = self.machine.output("ip", &["-j", "link", "show"]).unwrap();
        let links: Value = serde_json::from_str(&shown).unwrap();
        let name = |link: &Value| link["ifname"].as_str().unwrap().to_owned();
        let mut names: Vec<_> = links.as_array().unwrap().iter().map(name).collect();
        names.sort();
        names
    }

    fn run(&self, command: &str, config: &Value) -> anyhow::Result<Value> {
        execute(
            &self.machine,
            command,
            &attachment("sandbox"),
            &network(config).config(config, &Value::Null)?,
        )
    }

    fn add(&self, config: &Value) -> Value {
        self.run("ADD", config).unwrap()
    }

    /// The code, and the message has all these parts.
    #[track_caller]
    fn fails(&self, command: &str, config: &Value, code: u64, parts: &[&str]) {
        let error = self.run(command, config).unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert_eq!(failure.code(), code, "{failure}");
        for part in parts {
            assert!(failure.message().contains(part), "{part:?} is not in {:?}", failure.message());
        }
    }
}

const UNTOUCHED: [&str; 5] = ["eth1", "eth2", "far1", "far2", "lo"];

fn attachment(sandbox: &str) -> Attachment {
    Attachment {
        container: format!("c-{sandbox}"),
        netns: PathBuf::from("/run/netns").join(sandbox),
        interface: "net1".into(),
        arguments: format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME={sandbox}"),
    }
}

fn network(plugin: &Value) -> Network {
    Network { name: "vlan-net".into(), version: "0.3.1".into(), plugins: vec![plugin.clone()] }
}

/// As the controller renders it for one master.
fn vlan(master: &str, id: u16) -> Value {
    json!({"vlanID": id, "type": "ifacer", "interfaces": [master]})
}

/// As the controller renders it for two.
fn bond(mode: u8, options: &str) -> Value {
    json!({
        "type": "ifacer", "interfaces": ["eth1", "eth2"],
        "bond": {"name": "bond0", "mode": mode, "options": options},
    })
}

fn on_vlan(mut bond: Value, id: u16) -> Value {
    bond["vlanID"] = json!(id);
    bond
}

#[track_caller]
fn is_up(link: &Value) -> bool {
    link["flags"].as_array().unwrap_or_else(|| panic!("{link}")).contains(&json!("UP"))
}

/// Upstream's cases N00001, N00002, N00003 and N00005.
#[test]
fn a_vlan_is_made_once_and_kept_up() {
    if !can_run("a_vlan_is_made_once_and_kept_up") {
        return;
    }
    let host = Host::start("vlan");
    host.ip("link set eth1 down");
    let config = vlan("eth1", 100);
    assert_eq!(host.add(&config), json!({"cniVersion": "0.3.1", "dns": {}}));
    let made = host.link("eth1.100");
    assert_eq!((&made["link"], &made["linkinfo"]["info_kind"]), (&json!("eth1"), &json!("vlan")));
    let data = &made["linkinfo"]["info_data"];
    assert_eq!((&data["id"], &data["protocol"]), (&json!(100), &json!("802.1Q")));
    assert!(is_up(&made) && is_up(&host.link("eth1")), "the master was down");

    host.add(&config);
    assert_eq!(host.link("eth1.100")["ifindex"], made["ifindex"], "what is there is used");
    host.run("CHECK", &config).unwrap();

    host.ip("link set eth1.100 down");
    host.fails("CHECK", &config, 106, &["eth1.100 is not as it was set up", "link set eth1.100 up"]);
    host.add(&config);
    assert!(is_up(&host.link("eth1.100")));

    host.run("DEL", &config).unwrap();
    assert_eq!(host.link("eth1.100")["ifindex"], made["ifindex"], "other pods use it");
    // With a result of a plugin before it, it hands that on.
    let before = json!({"cniVersion": "0.3.1", "interfaces": [{"name": "x"}], "dns": {}});
    let later = network(&config).config(&config, &before).unwrap();
    assert_eq!(execute(&host.machine, "ADD", &attachment("sandbox"), &later).unwrap(), before);
}

/// Upstream's case N00004; and the same number on another interface, which upstream refuses too.
#[test]
fn a_vlan_of_another_name_is_an_error() {
    if !can_run("a_vlan_of_another_name_is_an_error") {
        return;
    }
    let host = Host::start("taken");
    host.ip(
        "link add link eth1 name storage type vlan id 100\nlink add link eth2 name eth2.200 type vlan id 200",
    );
    host.fails("ADD", &vlan("eth1", 100), 103, &["VLAN 100 on eth1", "is called storage"]);
    host.fails("CHECK", &vlan("eth1", 100), 106, &["is called storage"]);
    host.add(&vlan("eth2", 100));
    host.add(&vlan("eth1", 200));
    assert_eq!(host.link("eth1.200")["link"], json!("eth1"));
    assert_eq!(host.link("eth1.100"), Value::Null);

    // Its name is that of another VLAN, of something else, or its interface is in a pod.
    host.ip("link add link eth1 name eth2.7 type vlan id 8\nlink add eth2.9 type dummy\nlink add link eth2 name gone type vlan id 10\nlink set gone netns sandbox");
    host.fails("ADD", &vlan("eth2", 7), 103, &["eth2.7 is there already and is VLAN 8 on eth1"]);
    host.fails("ADD", &vlan("eth2", 9), 103, &["eth2.9", "of the kind dummy"]);
    host.fails("ADD", &vlan("eth2", 10), 103, &["VLAN 10 on eth2", "in another network namespace"]);
    host.sandbox_ip("link del gone");
    host.fails("ADD", &vlan("eth7", 1), 103, &["eth7 is not on this node"]);
    host.fails("ADD", &vlan("eth1", 4095), 7, &["vlanID 4095"]);
}

/// Options are applied, also those that are 0, which upstream cannot set.
#[test]
fn a_bond_has_its_mode_options_and_members() {
    if !can_run("a_bond_has_its_mode_options_and_members") {
        return;
    }
    let host = Host::start("bond");
    let options = "primary=eth2;up_delay=200;miimon=50;resend_igmp=0;fail_over_mac=1;active_slave=eth1";
    let config = on_vlan(bond(1, options), 100);
    host.add(&config);
    let made = host.link("bond0");
    let data = &made["linkinfo"]["info_data"];
    for (key, value) in [
        ("mode", json!("active-backup")),
        ("miimon", json!(50)),
        ("updelay", json!(200)),
        ("resend_igmp", json!(0)),
        ("primary", json!("eth2")),
        ("fail_over_mac", json!("active")),
    ] {
        assert_eq!(data[key], value, "{key}: {data}");
    }
    for member in ["eth1", "eth2"] {
        let link = host.link(member);
        assert!(is_up(&link) && link["master"] == "bond0", "{link}");
    }
    let tagged = host.link("bond0.100");
    assert!(is_up(&made) && is_up(&tagged) && tagged["link"] == "bond0", "{tagged}");
    host.add(&config);
    host.run("CHECK", &config).unwrap();
    assert_eq!(host.link("bond0")["ifindex"], made["ifindex"]);

    host.fails("ADD", &bond(4, ""), 103, &["mode 1 (active-backup)", "mode 4 (802.3ad)"]);
    let more =
        json!({"type": "ifacer", "interfaces": ["eth1", "far1"], "bond": {"name": "bond0", "mode": 1}});
    host.fails("ADD", &more, 103, &["members [eth1, eth2]", "[eth1, far1]"]);
    let second =
        json!({"type": "ifacer", "interfaces": ["far1", "eth2"], "bond": {"name": "bond1", "mode": 1}});
    host.fails("ADD", &second, 103, &["eth2", "bond1", "a port of bond0"]);
    host.ip("link set eth2 nomaster");
    host.fails("CHECK", &config, 106, &["link set eth2 master bond0"]);
    host.add(&config);
    let link = host.link("eth2");
    assert!(is_up(&link) && link["master"] == "bond0", "what it has lost comes back: {link}");
}

/// Each mode takes its options; LACP's have to be set while the bond is down.
#[test]
fn bonds_of_every_mode() {
    if !can_run("bonds_of_every_mode") {
        return;
    }
    let host = Host::start("modes");
    for (mode, options, shown) in [
        (0, "packets_per_slave=2", ("packets_per_slave", json!(2))),
        (
            1,
            r#"arp_interval=500;arp_ip_target=["10.6.0.1"];arp_validate=all"#,
            ("arp_validate", json!("all")),
        ),
        (2, "xmit_hash_policy=layer3+4", ("xmit_hash_policy", json!("layer3+4"))),
        (3, "min_links=1", ("min_links", json!(1))),
        (
            4,
            "lacp_rate=1;ad_select=bandwidth;ad_actor_sys_prio=7;ad_user_port_key=9;ad_actor_system=02:00:00:00:00:07",
            ("ad_lacp_rate", json!("fast")),
        ),
        (5, "tlb_dynamic_lb=0", ("tlb_dynamic_lb", json!(0))),
        (6, "lp_interval=3;all_slaves_active=1", ("lp_interval", json!(3))),
    ] {
        host.add(&bond(mode, options));
        let link = host.link("bond0");
        assert_eq!(link["linkinfo"]["info_data"][shown.0], shown.1, "mode {mode}: {link}");
        assert!(is_up(&link), "mode {mode}");
        host.ip("link del bond0");
    }
    host.fails(
        "ADD",
        &bond(1, "lacp_rate=1"),
        7,
        &["bond.options of bond0", "lacp_rate does not work in mode 1"],
    );
}

/// What was there stays, also what an ADD had down.
#[test]
fn a_failed_add_removes_what_it_has_made_and_nothing_else() {
    if !can_run("a_failed_add_removes_what_it_has_made_and_nothing_else") {
        return;
    }
    let host = Host::start("failed");
    // A bond and a macvlan cannot have the same interface.
    host.ip("link add link eth2 name pod type macvlan");
    host.fails("ADD", &on_vlan(bond(1, ""), 100), 104, &["link set eth2 master bond0", "eth2 is in use"]);
    host.ip("link del pod");
    assert_eq!(host.names(), UNTOUCHED);
    for nic in ["eth1", "eth2"] {
        let link = host.link(nic);
        assert!(is_up(&link) && link["master"].is_null(), "{link}");
    }
    host.ip("addr add 10.6.0.1/24 dev eth1\nroute add default via 10.6.0.2");
    host.fails("ADD", &bond(1, ""), 103, &["eth1", "default route"]);
    host.ip("route del default");
    host.fails("ADD", &bond(1, ""), 103, &["eth1", "the address 10.6.0.1"]);
    host.ip("addr flush dev eth1");

    // The bond is another network's already: it stays, with its VLAN in a pod.
    host.add(&bond(1, ""));
    let there = host.link("bond0")["ifindex"].clone();
    host.ip("link add link bond0 name gone type vlan id 100\nlink set gone netns sandbox");
    host.fails("ADD", &on_vlan(bond(1, ""), 100), 103, &["VLAN 100 on bond0", "another network namespace"]);
    assert_eq!(host.link("bond0")["ifindex"], there);
    host.sandbox_ip("link del gone");
    let sandboxless = Attachment { netns: "/run/netns/none".into(), ..attachment("none") };
    let config = vlan("far1", 5);
    let input = network(&config).config(&config, &Value::Null).unwrap();
    execute(&host.machine, "ADD", &sandboxless, &input).unwrap_err();
    assert_eq!(host.link("far1.5"), Value::Null, "nothing is made for a sandbox that is gone");
}

/// Upstream has no lock: the second ADD fails there.
#[test]
fn adds_at_the_same_time_all_succeed() {
    if !can_run("adds_at_the_same_time_all_succeed") {
        return;
    }
    let host = Host::start("together");
    let all_succeed = |configs: &[Value]| {
        let results: Vec<_> = thread::scope(|scope| {
            let adds: Vec<_> = configs.iter().map(|config| scope.spawn(|| host.run("ADD", config))).collect();
            adds.into_iter().map(|add| add.join().unwrap()).collect()
        });
        for result in results {
            result.unwrap();
        }
    };
    let tagged = on_vlan(bond(1, "primary=eth1"), 100);
    for _ in 0..2 {
        all_succeed(&[
            tagged.clone(),
            tagged.clone(),
            on_vlan(bond(1, ""), 200),
            bond(1, ""),
            tagged.clone(),
        ]);
        for (name, link) in [("bond0.100", "bond0"), ("bond0.200", "bond0")] {
            assert_eq!(host.link(name)["link"], json!(link));
        }
        host.ip("link del bond0");
    }
    // Somebody keeps the lock: no ADD waits for ever, and each judges what the others have made.
    let lock = host.machine.run(|| Ok(NetNs::current()?.lock(Duration::ZERO)?)).unwrap();
    assert!(lock.is_some());
    assert!(host.machine.run(|| Ok(NetNs::current()?.lock(Duration::ZERO)?)).unwrap().is_none());
    all_succeed(&vec![vlan("eth1", 7); 4]);
    assert_eq!(host.link("eth1.7")["link"], json!("eth1"));
}

/// Two nodes whose NICs are on one switch, with a pod on each: on a VLAN of a bond of both NICs.
struct Wired {
    nodes: [Machine; 2],
    _switch: Machine,
    _state: StateDir,
}

impl Wired {
    fn start() -> Self {
        let state = StateDir::create().unwrap();
        let switch = Machine::start("switch", &state).unwrap();
        switch.ip("link add lan type bridge mcast_snooping 0\nlink set lan up").unwrap();
        let nodes = ["node1", "node2"].map(|name| {
            let node = Machine::start(name, &state).unwrap();
            for nic in ["eth1", "eth2"] {
                let (port, process) = (format!("{name}-{nic}"), node.process());
                switch
                    .ip(&format!(
                        "link add {port} type veth peer name {nic} netns {process}\nlink set {port} master lan up"
                    ))
                    .unwrap();
            }
            node
        });
        Self { nodes, _switch: switch, _state: state }
    }
}

/// Its address, and where it is.
fn add_pod(node: &Machine, network: &Network) -> (IpAddr, Namespaces) {
    let name = format!("{}-pod", node.name);
    node.output("ip", &["netns", "add", &name]).unwrap();
    let result = network.add(node, &attachment(&name)).unwrap();
    network.check(node, &attachment(&name), &result).unwrap();
    let address = result["ips"][0]["address"].as_str().unwrap();
    let address = address.split('/').next().unwrap().parse().unwrap();
    (address, node.with_network(&name, &PathBuf::from("/run/netns").join(&name)))
}

fn del_pod(node: &Machine, network: &Network) {
    let name = format!("{}-pod", node.name);
    network.del(node, &attachment(&name), &Value::Null).unwrap();
    node.output("ip", &["netns", "del", &name]).unwrap();
}

/// A plugin list as the controller renders it; the node decides the range.
fn pods_on(ifacer: &Value, main: &str, master: &str, node: u8) -> Network {
    let ipam = json!({
        "type": "host-local", "dataDir": "/run/host-local",
        "ranges": [[{"subnet": "10.88.0.0/16", "rangeStart": Ipv4Addr::new(10, 88, node, 1),
                     "rangeEnd": Ipv4Addr::new(10, 88, node, 9)}]],
    });
    let mode = if main == "macvlan" { "bridge" } else { "l2" };
    let plugin = json!({"type": main, "master": master, "mode": mode, "mtu": 0, "ipam": ipam});
    Network { name: "pods".into(), version: "0.4.0".into(), plugins: vec![ifacer.clone(), plugin] }
}

/// Upstream's case N00006 too: after the node's start its pods are set up again, and with them its interfaces.
#[test]
fn pods_on_a_vlan_of_a_bond_reach_each_other_by_either_nic_and_after_a_restart() {
    if !can_run("pods_on_a_vlan_of_a_bond_reach_each_other") {
        return;
    }
    let wired = Wired::start();
    let ifacer = on_vlan(bond(1, "miimon=50;primary=eth1"), 100);
    let network = |node| pods_on(&ifacer, "macvlan", "bond0.100", node);
    let [node1, node2] = &wired.nodes;
    let (_, from) = add_pod(node1, &network(1));
    let (to, there) = add_pod(node2, &network(2));
    let server = Server::start(&there).unwrap();
    let reaches = |what: &str, from: &Namespaces, to: IpAddr| {
        poll::until(what, Duration::from_secs(5), || {
            send(from, Probe { protocol: Protocol::Udp, to, bound: None })
        })
        .unwrap();
    };
    reaches("a pod of the other node", &from, to);
    for node in &wired.nodes {
        node.ip("link set eth1 down").unwrap();
    }
    reaches("a pod of the other node by the second NIC", &from, to);
    drop(server);

    for node in &wired.nodes {
        del_pod(node, &network(1));
        assert!(node.output("ip", &["link", "show", "bond0.100"]).is_ok(), "the interface stays");
        node.ip("link del bond0").unwrap();
    }
    let (_, from) = add_pod(node1, &network(1));
    let (to, there) = add_pod(node2, &network(2));
    let _server = Server::start(&there).unwrap();
    reaches("a pod of the other node after a restart", &from, to);
}
