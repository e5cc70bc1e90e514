//! What comes into the pod: answers of translated flows are translated back, and flows that the other side
//! starts are remembered with NIC and sender. Nothing is dropped but what comes in by an underlay NIC for the cluster
//! NIC's address, or about its flows: servers there are behind the default network's policies.

use crate::headers::{self, Fragment, Headers, L4Kind};
use crate::maps::{
    Direction, FlowKeys, FragmentKey, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_NONE, ROLE_UNDERLAY,
};
use crate::mtu;
use crate::nat;
use crate::packet::{IPV4, IPV6, Packet};
use crate::pod;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::scratch::Scratch;
use crate::state::State;
use crate::verdict::{Outcome, Verdict};
use crate::{arrivals, errors, fragments, pod_end};

/// The program on the ingress of each NIC. `id` is the NIC's id (0: none).
#[inline(always)]
pub fn ingress<P: Packet, S: State>(p: &mut P, id: u16, scratch: &mut Scratch, s: &S) -> Verdict {
    let Some(nic) = s.nic(id) else { return Verdict::Pass };
    if nic.role == ROLE_NONE || id == 0 {
        return Verdict::Pass;
    }
    let bytes = p.len();
    let Scratch { headers, quoted, keys, rewrite, message, outcome: stored, .. } = scratch;
    rewrite.clear();
    headers.fragment = Fragment::No;
    let mut outcome = Scratch::reload(stored, decide(p, id, nic, (headers, quoted, keys), rewrite, s));
    if !rewrite.apply(p, headers, quoted, message) {
        rewrite.clear();
        outcome = Outcome::pass(Reason::Failed);
    } else if rewrite.lowers_mss() {
        s.count(id, Reason::MssClamped, bytes);
    }
    if matches!(headers.fragment, Fragment::First) && may_be_translated(nic, s) {
        fragments::lead(&FragmentKey::of(id, headers, Direction::Ingress), rewrite, outcome, s);
    }
    s.count(id, outcome.reason, bytes);
    outcome.verdict()
}

#[inline(always)]
fn decide<P: Packet, S: State>(
    p: &P,
    id: u16,
    nic: &NicEntry,
    (h, quoted, keys): (&mut Headers, &mut Headers, &mut FlowKeys),
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if !matches!(p.protocol(), IPV4 | IPV6) {
        return if nic.role == ROLE_UNDERLAY && p.has_hidden_tags() {
            Outcome::drop(Reason::HiddenTags)
        } else {
            Outcome::pass(Reason::NotIp)
        };
    }
    if !headers::parse(p, h) {
        return Outcome::pass(Reason::Malformed);
    }
    let h = &*h;
    if h.dst.is_link_scope() || h.is_discovery() {
        return Outcome::pass(Reason::LinkScope);
    }
    if nic.role == ROLE_UNDERLAY && !nic.owns(h.dst) && pod::is_cluster_address(nic, &h.dst, s) {
        return Outcome::drop(Reason::ClusterAddress);
    }
    if nic.role == ROLE_UNDERLAY
        && matches!(h.l4.kind, L4Kind::IcmpError)
        && errors::is_about_cluster_nic(p, nic, h, quoted, s)
    {
        return Outcome::drop(Reason::ClusterAddress);
    }
    if !h.is_tracked() {
        return untracked(p, id, nic, h, quoted, rewrite, s);
    }
    if p.is_for_other_host() {
        return Outcome::pass(Reason::NotOurs);
    }
    let outcome = look_up(id, nic, h, keys, rewrite, s);
    let for_pod = nic.owns(h.dst) || matches!(outcome.reason, Reason::ArrivalNew | Reason::ArrivalSeen);
    if for_pod && h.has_mss() {
        mtu::clamp_mss(p, h, nic.mtu, rewrite);
    }
    outcome
}

/// What has no flow of its own: it may belong to a translated one.
#[inline(always)]
fn untracked<P: Packet, S: State>(
    p: &P,
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    quoted: &mut Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    let undecided = Outcome::undecided(Reason::of_untracked(h));
    let outcome = if !may_be_translated(nic, s) || p.is_for_other_host() {
        undecided
    } else if errors::is_error(h) {
        errors::comes_in(p, nic, h, quoted, rewrite, s)
    } else {
        fragments::follow(id, h, Direction::Ingress, rewrite, s)
    };
    outcome.decided().unwrap_or(Outcome::pass(undecided.reason))
}

/// Whether what comes in by a NIC may be of a translated flow.
#[inline(always)]
fn may_be_translated<S: State>(nic: &NicEntry, s: &S) -> bool {
    nic.role == ROLE_CLUSTER && s.flags(nic.pod).translated != 0
}

#[inline(always)]
fn look_up<S: State>(
    id: u16,
    nic: &NicEntry,
    h: &Headers,
    keys: &mut FlowKeys,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if may_be_translated(nic, s)
        && let Some(outcome) = nat::translate_back(nic, h, rewrite, s).decided()
    {
        return outcome;
    }
    if nic.role == ROLE_NODE_LINK {
        return Outcome::pass(pod_end::accept(id, nic, h, keys, s));
    }
    Outcome::pass(arrivals::record(id, nic, h, keys, s))
}
