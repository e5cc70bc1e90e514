//! Whether packets of a NIC still reach our filters, behind or among those of others.

/// What a NIC and our filters on it have counted between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NicCounts {
    /// Packets that the NIC has received.
    pub received: u64,
    /// Packets that it has sent.
    pub sent: u64,
    /// Packets that our filters have seen, of both directions.
    pub seen: u64,
}

/// In which directions a filter of somebody else comes before ours.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FiltersAhead {
    /// Of what the NIC receives.
    pub ingress: bool,
    /// Of what it sends.
    pub egress: bool,
}

/// Fewer packets prove nothing.
const ENOUGH: u64 = 20;

impl NicCounts {
    /// What was counted since `earlier`; `None` if the counters began again meanwhile.
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            received: self.received.checked_sub(earlier.received)?,
            sent: self.sent.checked_sub(earlier.sent)?,
            seen: self.seen.checked_sub(earlier.seen)?,
        })
    }
}

/// Whether the packets of a direction end before our filter: another filter of that side is first and ends
/// classification.
///
/// Our filters count both directions as one. A direction where nothing is ahead of ours is counted in full; of the
/// others at least half of the packets must be seen, because some are counted by the NIC alone.
pub fn is_starved(counts: NicCounts, ahead: FiltersAhead) -> bool {
    let of = |is_ahead: bool| {
        let side = |ahead: bool, packets: u64| if ahead == is_ahead { packets } else { 0 };
        side(ahead.ingress, counts.received).saturating_add(side(ahead.egress, counts.sent))
    };
    let (behind, free) = (of(true), of(false));
    if behind >= ENOUGH && counts.seen < free.saturating_add(behind / 2) {
        return true;
    }
    // Also where nothing is known to be ahead, for example a program that is not attached by tc.
    counts.seen == 0 && behind.saturating_add(free) >= 5 * ENOUGH
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: FiltersAhead = FiltersAhead { ingress: false, egress: false };
    const EGRESS: FiltersAhead = FiltersAhead { egress: true, ..NONE };
    const INGRESS: FiltersAhead = FiltersAhead { ingress: true, ..NONE };
    const BOTH: FiltersAhead = FiltersAhead { ingress: true, egress: true };

    #[test]
    fn packets_that_do_not_reach_a_filter_behind_another_are_missed() {
        for (received, sent, seen, ahead, starved) in [
            // Nothing is ahead: fewer are seen than counted, and that is no proof.
            (1000, 1000, 1000, NONE, false),
            (1000, 1000, 1, NONE, false),
            (1000, 1000, 0, NONE, true),
            (49, 50, 0, NONE, false),
            // One that lets go on.
            (1000, 1000, 2000, EGRESS, false),
            (1000, 1000, 2000, BOTH, false),
            // One that ends classification, on one side and on both.
            (1000, 1000, 1000, EGRESS, true),
            (1000, 1000, 1000, INGRESS, true),
            (1000, 1000, 10, BOTH, true),
            // What the programs move never counts as sent.
            (1000, 0, 3000, EGRESS, false),
            // Too few.
            (1000, 19, 1000, EGRESS, false),
            (1000, 20, 1000, EGRESS, true),
            (0, 0, 0, BOTH, false),
        ] {
            let counts = NicCounts { received, sent, seen };
            assert_eq!(is_starved(counts, ahead), starved, "{counts:?} {ahead:?}");
        }
    }

    #[test]
    fn counters_that_begin_again_prove_nothing() {
        let counts = |received, sent, seen| NicCounts { received, sent, seen };
        assert_eq!(counts(5, 6, 7).since(counts(1, 1, 1)), Some(counts(4, 5, 6)));
        assert_eq!(counts(5, 6, 0).since(counts(1, 1, 1)), None);
    }
}
