//! Later fragments have addresses and an identification, and neither ports nor flags: they follow their first one, which leaves in
//! the map `fragments` what became of it. Those that come before it are treated by their addresses alone.

use crate::flow_state::FRAGMENTS_FOR;
use crate::headers::{Fragment, Headers};
use crate::maps::{Direction, FragmentEntry, FragmentKey};
use crate::reason::Reason;
use crate::rewrite::Rewrite;
use crate::state::State;
use crate::verdict::{Outcome, Verdict};

/// A first fragment has been changed and goes where `outcome` says. Without change it needs no entry, and an older packet's must not
/// be followed.
#[inline(never)]
pub(crate) fn lead<S: State>(key: &FragmentKey, rewrite: &Rewrite, outcome: Outcome, s: &S) {
    if rewrite.is_empty() && matches!(outcome.verdict(), Verdict::Pass) {
        s.fragment_remove(key);
        return;
    }
    let (action, ifindex, mtu) = outcome.to_numbers();
    let (changes, addr, macs) = rewrite.followed();
    let entry = FragmentEntry { since: s.now(), addr, macs, ifindex, mtu, changes, action, _pad: [0; 3] };
    s.fragment_put(key, &entry);
}

/// What its first one has left for a later fragment; undecided if it has left nothing.
#[inline(always)]
pub(crate) fn follow<S: State>(
    nic: u16,
    h: &Headers,
    direction: Direction,
    rewrite: &mut Rewrite,
    s: &S,
) -> Outcome {
    if matches!(h.fragment, Fragment::Later) {
        follow_first(&FragmentKey::of(nic, h, direction), rewrite, s)
    } else {
        Outcome::undecided(Reason::Fragment)
    }
}

#[inline(never)]
fn follow_first<S: State>(key: &FragmentKey, rewrite: &mut Rewrite, s: &S) -> Outcome {
    const NONE: Outcome = Outcome::undecided(Reason::Fragment);
    let Some(entry) = s.fragment(key) else { return NONE };
    if s.now().saturating_sub(entry.since) > FRAGMENTS_FOR {
        return NONE;
    }
    rewrite.follow(entry.changes, entry.addr, entry.macs);
    Outcome::from_numbers((entry.action, entry.ifindex, entry.mtu), Reason::FragmentFollowed)
}
