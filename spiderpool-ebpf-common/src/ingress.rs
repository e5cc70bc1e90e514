//! What comes into the pod: answers of translated flows are translated back, and flows that the other side
//! starts are remembered with NIC and sender. Nothing is ever dropped.

use crate::arrivals;
use crate::headers::{self, Headers, Kind};
use crate::maps::{NicEntry, ROLE_CLUSTER, ROLE_NONE};
use crate::mss;
use crate::nat;
use crate::packet::{IPV4, IPV6, Packet};
use crate::reason::Reason;
use crate::state::State;
use crate::verdict::{Outcome, Verdict};

/// The program on the ingress of each NIC. `id` is the NIC's id (0: none); `h` is memory to work in.
#[inline(always)]
pub fn ingress<P: Packet, S: State>(p: &mut P, id: u16, h: &mut Headers, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Pass };
    if nic.role == ROLE_NONE || id == 0 {
        return Verdict::Pass;
    }
    let bytes = p.len();
    let outcome = decide(p, id, nic, h, s);
    s.count(id, outcome.reason, bytes);
    outcome.verdict()
}

#[inline(always)]
fn decide<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &mut Headers, s: &S) -> Outcome {
    if !matches!(p.protocol(), IPV4 | IPV6) {
        return Outcome::pass(Reason::NotIp);
    }
    if !headers::parse(p, h) {
        return Outcome::pass(Reason::Malformed);
    }
    let h = &*h;
    if h.dst.is_link_scope() || matches!(h.kind, Kind::Solicitation | Kind::Discovery) {
        return Outcome::pass(Reason::LinkScope);
    }
    if !h.is_flow() {
        return Outcome::pass(match h.kind {
            Kind::Fragment => Reason::Fragment,
            Kind::IcmpError => Reason::IcmpError,
            Kind::Malformed => Reason::Malformed,
            _ => Reason::OtherProtocol,
        });
    }
    if p.is_for_others() {
        return Outcome::pass(Reason::NotOurs);
    }
    let outcome = known(p, id, nic, h, s);
    let ours = nic.owns(h.dst) || matches!(outcome.reason, Reason::ArrivalNew | Reason::ArrivalSeen);
    if h.is_handshake() && ours && mss::clamp(p, h, nic.mtu) {
        s.count(id, Reason::MssClamped, p.len());
    }
    outcome
}

#[inline(always)]
fn known<P: Packet, S: State>(p: &mut P, id: u16, nic: &NicEntry, h: &Headers, s: &S) -> Outcome {
    if nic.role == ROLE_CLUSTER
        && let Some(outcome) = nat::translate_back(p, nic, h, s).decided()
    {
        return outcome;
    }
    Outcome::pass(arrivals::record(id, nic, h, s))
}
