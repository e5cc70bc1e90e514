//! Filters that other programs detach or replace are attached again, behind those of others.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::Command;

use spiderpool_core::dataplane::FiltersAhead;
use spiderpool_dataplane::{AttachError, Repaired, detach_id, repair};
use spiderpool_net::block_on;
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use spiderpool_net::tc::Direction;
use support::{BpfFs, can_run};

const NONE: FiltersAhead = FiltersAhead { ingress: false, egress: false };
/// Every packet of IPv4, and it ends there.
const OTHERS: &str = "protocol ip bpf bytecode 1,6\u{a0}0\u{a0}0\u{a0}4294967295";

fn run(program: &str, arguments: &str) {
    let arguments = arguments.split(' ').map(|argument| argument.replace('\u{a0}', " "));
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// As Kata Containers makes one. Before, the egress filter failed, with "invalid argument".
#[test]
fn an_ingress_qdisc_in_the_place_of_clsact_is_named() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let dataplane = fs.load();
    let test = async || {
        run("ip", "link add near up type veth peer name far");
        run("tc", "qdisc add dev near ingress");
        let mut netlink = Netlink::open()?;
        let index = netlink.link_by_name(&"near".parse().unwrap()).await?.unwrap().index;
        let error = repair(&mut netlink, index, 7, &dataplane.programs().nic).await.unwrap_err().to_string();
        assert!(error.contains("ingress qdisc") && error.contains("dataplane to policy"), "{error}");
        run("tc", "qdisc del dev near ingress");
        repair(&mut netlink, index, 7, &dataplane.programs().nic).await?;
        Ok::<_, AttachError>(())
    };
    NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
}

/// Priorities and ids of the filters on a side.
async fn places(netlink: &mut Netlink, index: u32, direction: Direction) -> Vec<(u16, u32)> {
    let present = netlink.filters(index, direction).await.unwrap();
    present.iter().map(|filter| (filter.priority, filter.classid)).collect()
}

#[test]
fn filters_that_others_detach_or_replace_are_attached_again_behind_theirs() {
    if !can_run() {
        return;
    }
    let fs = BpfFs::mount();
    let dataplane = fs.load();
    let programs = &dataplane.programs().nic;
    let test = async || {
        run("ip", "link add near up type veth peer name far");
        let mut netlink = Netlink::open()?;
        let index = netlink.link_by_name(&"near".parse().unwrap()).await?.unwrap().index;
        let repaired = |restored, ahead| Repaired { restored, ahead };
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(2, NONE));
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(0, NONE));

        run("tc", "qdisc del dev near clsact");
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(2, NONE));

        // An agent that takes ours away and puts its own there.
        run("tc", "filter del dev near egress");
        run("tc", &format!("filter add dev near egress pref 1 handle 1 {OTHERS}"));
        let behind = FiltersAhead { egress: true, ..NONE };
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(1, behind));
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(0, behind));
        assert_eq!(places(&mut netlink, index, Direction::Egress).await, [(1, 0), (2, 7)]);
        assert_eq!(places(&mut netlink, index, Direction::Ingress).await, [(1, 7)]);

        // The other one goes, and a plugin attaches ours in front: one of them is enough.
        run("tc", "filter del dev near egress pref 1");
        netlink.ensure_filter(index, Direction::Egress, programs.egress_fd(), 7).await?;
        assert_eq!(places(&mut netlink, index, Direction::Egress).await.len(), 2);
        assert_eq!(repair(&mut netlink, index, 7, programs).await?, repaired(0, NONE));
        assert_eq!(places(&mut netlink, index, Direction::Egress).await, [(1, 7)]);

        // Of a NIC whose id is freed, by its index alone: a later one may have it.
        detach_id(&mut netlink, index, 8).await?;
        assert_eq!(places(&mut netlink, index, Direction::Egress).await, [(1, 7)]);
        detach_id(&mut netlink, index, 7).await?;
        for direction in Direction::ALL {
            assert_eq!(places(&mut netlink, index, direction).await, []);
        }
        detach_id(&mut netlink, index + 100, 7).await?;
        Ok::<_, AttachError>(())
    };
    NetNs::create().unwrap().run(|| block_on(test())).unwrap().unwrap();
}
