//! What comes into the pod and is neither an answer nor the first packet of a flow.

use super::{run_egress, run_ingress};
use crate::headers::{ACK, SYN};
use crate::model::Frame;
use crate::model::frames::{self, Ends};
use crate::model::pod::{ETH0, Endpoint, Family, NET1, NET2, SP0, at, tables};
use crate::reason::Reason;
use crate::verdict::Verdict;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// Its servers are behind the policies of the default network, and everybody in the underlay can send to net1's MAC.
#[test]
fn the_cluster_address_is_not_reached_by_an_underlay_nic() {
    for family in FAMILIES {
        for called in [Endpoint::Nic(ETH0), Endpoint::Second(ETH0)] {
            let e = Ends {
                dst: at(called, family),
                src: at(Endpoint::Outside, family),
                sport: 33_000,
                dport: 80,
            };
            let frames = [
                frames::tcp(e, SYN, b""),
                frames::tcp(e, ACK, b"x"),
                frames::udp(e, b"q"),
                frames::echo(e, true, 1, b""),
                frames::sctp(e, true),
                frames::other(e, 47, &[0; 8]),
                frames::icmp_error(e),
                frames::fragment(frames::udp(e, &[0; 64]), true),
                frames::fragment(frames::udp(e, &[0; 64]), false),
            ];
            for frame in frames {
                for nic in [NET1, NET2] {
                    let done = run_ingress(&tables(), nic, &frame);
                    assert_eq!((done.verdict, done.reason), (Verdict::Drop, Reason::ClusterAddress));
                }
                for nic in [ETH0, SP0] {
                    assert_eq!(run_ingress(&tables(), nic, &frame).verdict, Verdict::Pass);
                }
            }
        }
    }
}

/// The kernel finds socket and path by what an error quotes: by net1 nobody may speak about what leaves by eth0.
#[test]
fn errors_by_an_underlay_nic_are_about_its_own_flows() {
    for family in FAMILIES {
        let tables = tables();
        let own = |src, dst| Ends { src: at(src, family), sport: 40_000, dst: at(dst, family), dport: 53 };
        let (net1, eth0) = (Endpoint::Nic(NET1), Endpoint::Nic(ETH0));
        // From anybody to net1's address, about a packet of the pod's.
        let about = |sent: &Frame| frames::icmp_error_about(own(Endpoint::Outside, net1), sent);
        let come = |frame: &Frame| {
            let done = run_ingress(&tables, NET1, frame);
            (done.verdict, done.reason)
        };
        let dropped = (Verdict::Drop, Reason::ClusterAddress);
        for sent in [
            frames::udp(own(eth0, Endpoint::Service), b"q"),
            frames::tcp(own(Endpoint::Second(ETH0), Endpoint::Service), ACK, b"x"),
            frames::echo(own(eth0, Endpoint::Service), false, 1, b"x"),
            frames::fragment(frames::udp(own(eth0, Endpoint::Service), &[7; 64]), false),
        ] {
            assert_eq!(come(&about(&sent)), dropped, "{family:?}");
        }
        // net1's own, until it is translated.
        let sent = frames::udp(own(net1, Endpoint::Service), b"q");
        assert_eq!(come(&about(&sent)), (Verdict::Pass, Reason::IcmpError), "{family:?}");
        assert_eq!(run_egress(&tables, NET1, &sent).reason, Reason::NatNew);
        assert_eq!(come(&about(&sent)), dropped, "{family:?}");
        let direct = frames::udp(own(net1, Endpoint::Outside), b"q");
        assert_eq!(come(&about(&direct)), (Verdict::Pass, Reason::IcmpError), "{family:?}");
        // A fragmented one may be about anything.
        assert_eq!(come(&frames::fragment(about(&direct), true)), dropped, "{family:?}");
    }
}

/// As `tagged.rs` of the loader's tests shows with a kernel.
#[test]
fn what_is_behind_several_tags_is_not_let_in_by_an_underlay_nic() {
    let tables = tables();
    let e = Ends {
        src: at(Endpoint::Outside, Family::V4),
        sport: 1,
        dst: at(Endpoint::Nic(ETH0), Family::V4),
        dport: 80,
    };
    let mut frame = frames::udp(e, b"x");
    frame.bytes.splice(12..12, [0x81, 0, 0, 0]);
    for (nic, verdict, reason) in
        [(NET1, Verdict::Drop, Reason::HiddenTags), (ETH0, Verdict::Pass, Reason::NotIp)]
    {
        let done = run_ingress(&tables, nic, &frame);
        assert_eq!((done.verdict, done.reason), (verdict, reason));
    }
}
