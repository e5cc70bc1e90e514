//! ICMP errors belong to the flow of the packet that they quote: they go where its packets go, translated as those.

use crate::addr::Addr;
use crate::headers::{self, Fragment, Headers, L4Kind};
use crate::maps::NicEntry;
use crate::nat;
use crate::packet::Packet;
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::scratch::Facts;
use crate::state::State;
use crate::verdict::Outcome;
use crate::{pod, pod_end, replies};

/// Type of ICMP's redirect (RFC 792).
const REDIRECT: u8 = 5;

/// Reads what an error quotes. A redirect is about the link that it comes by, and no flow's.
#[inline(always)]
fn quotes<P: Packet>(p: &P, h: &Headers, quoted: &mut Headers) -> bool {
    let is_redirect = h.src.is_v4() && matches!(p.load::<1>(h.l4.offset), Some([REDIRECT]));
    !is_redirect && headers::parse_quoted(p, h, quoted)
}

/// Whether an ICMP error is about a packet that came from whom it goes to.
#[inline(always)]
pub(crate) fn quotes_packet_of_receiver<P: Packet>(p: &P, h: &Headers, quoted: &mut Headers) -> bool {
    quotes(p, h, quoted) && quoted.src == h.dst && quoted.dst == h.src
}

/// Whether a packet is a whole ICMP error.
#[inline(always)]
pub(crate) const fn is_error(h: &Headers) -> bool {
    matches!((h.fragment, h.l4.kind), (Fragment::No, L4Kind::IcmpError))
}

/// The pod sends an error about a packet that it got; undecided if that is of no flow that is known.
#[inline(always)]
pub(crate) fn leaves<P: Packet, S: State>(
    p: &P,
    (id, nic, exit): (u16, &NicEntry, Option<&NicEntry>),
    facts: &Facts,
    h: &Headers,
    quoted: &mut Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    const NONE: Outcome = Outcome::undecided(Reason::IcmpError);
    if !quotes_packet_of_receiver(p, h, quoted) {
        return NONE;
    }
    let (quoted, flags, kept) = (&*quoted, s.flags(nic.pod), nic.keeps_translations != 0);
    if !facts.is_direct()
        && (facts.is_steered() || flags.link_flows != 0)
        && let Some(outcome) = pod_end::reply_about(nic, quoted, rewrite, s).decided()
    {
        return outcome;
    }
    if flags.translated != 0
        && (facts.is_steered() || kept)
        && let Some(exit) = exit
        && nat::translate_error(exit, quoted, rewrite, s)
    {
        return pod::by_exit(nic, exit, rewrite, Reason::ErrorTranslated);
    }
    if !facts.is_direct() && (facts.is_steered() || kept || flags.any_local != 0) {
        return replies::reply_about(id, nic, quoted, rewrite, s).or_undecided(Reason::IcmpError);
    }
    NONE
}

/// Whether an error that comes in by an underlay NIC is about what the pod sends by the cluster NIC: the kernel would find socket and
/// path by the packet that it quotes, and somebody in the underlay could cut flows that never come there, or lower their MTU. A
/// fragment may be about anything: the kernel puts it together behind the program.
#[inline(never)]
pub(crate) fn is_about_cluster_nic<P: Packet, S: State>(
    p: &P,
    nic: &NicEntry,
    h: &Headers,
    quoted: &mut Headers,
    s: &S,
) -> bool {
    if !pod::has_cluster_nic(nic, s) {
        return false;
    }
    // Not as a whole: what is quoted may be a later fragment, or cut off.
    let at = h.l4.offset + 8;
    let source = if h.src.is_v4() { p.load(at + 12).map(Addr::v4) } else { p.load(at + 8).map(Addr::v6) };
    if !matches!(h.fragment, Fragment::No)
        || source.is_some_and(|source| pod::is_cluster_address(nic, &source, s))
    {
        return true;
    }
    // What is too long for the cluster NIC the program of this NIC says itself, to the socket's own address.
    s.flags(nic.pod).translated != 0
        && !is_too_big(p, h)
        && quotes(p, h, quoted)
        && nat::is_translated(nic, quoted, s)
}

/// *Fragmentation needed* (RFC 792) or *packet too big* (RFC 4443).
#[inline(always)]
fn is_too_big<P: Packet>(p: &P, h: &Headers) -> bool {
    let Some([ty, code]) = p.load(h.l4.offset) else { return false };
    if h.src.is_v4() { (ty, code) == (3, 4) } else { ty == 2 }
}

/// An error comes in by the cluster NIC about a packet that the pod has sent; undecided if that was not translated.
#[inline(always)]
pub(crate) fn comes_in<P: Packet, S: State>(
    p: &P,
    nic: &NicEntry,
    h: &Headers,
    quoted: &mut Headers,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if !quotes(p, h, quoted) || quoted.src != h.dst {
        return Outcome::undecided(Reason::IcmpError);
    }
    nat::translate_error_back(nic, quoted, rewrite, s)
}
