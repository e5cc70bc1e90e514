//! What comes into the pod and is neither an answer nor the first packet of a flow.

use super::run_ingress;
use crate::headers::{ACK, SYN};
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
