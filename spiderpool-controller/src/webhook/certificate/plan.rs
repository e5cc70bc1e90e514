//! What to do about the certificate, of the method `auto`.

use super::validity::Validity;

/// API servers learn of a CA by a watch: a certificate of it is served this part of its time later, within limits.
const SETTLE_PART: i64 = 20;
const SETTLE_LIMIT: i64 = 60;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CertificatePlan {
    /// Nothing before this time.
    Wait { until: i64 },
    /// Make a certificate and serve it at once: there is none that anybody would take.
    Replace,
    /// Make the next one, so that its CA can be trusted before it is served.
    Prepare,
    /// Serve the prepared one.
    Promote,
}

/// Who decides. While an upgrade changes the names of the certificate, replicas want different ones: only the leader makes
/// another certificate because of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decider {
    Leader,
    Follower,
}

/// Whether a certificate has all names that this replica would give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    All,
    Lacking,
}

/// A certificate that the API server takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usable {
    pub(super) validity: Validity,
    pub(super) names: Names,
}

/// The next certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) usable: Usable,
    /// Since when the API server has been told of its CA; `None` if it has not.
    pub(super) trusted_since: Option<i64>,
}

/// `serving` and `prepared` are `None` where there is none that can be used.
pub(super) fn plan_certificate(
    now: i64,
    decider: Decider,
    serving: Option<Usable>,
    prepared: Option<Prepared>,
) -> CertificatePlan {
    let prepared = prepared.filter(|prepared| now < prepared.usable.validity.not_after);
    let Some(serving) = serving.filter(|serving| now < serving.validity.not_after) else {
        return if prepared.is_some() { CertificatePlan::Promote } else { CertificatePlan::Replace };
    };
    let wants = |names| decider == Decider::Follower || names == Names::All;
    let renewal = serving.validity.renewal();
    if now < renewal && wants(serving.names) && prepared.is_none() {
        return CertificatePlan::Wait { until: renewal };
    }
    let is_good =
        |prepared: &Prepared| now < prepared.usable.validity.renewal() && wants(prepared.usable.names);
    let Some(prepared) = prepared.filter(is_good) else { return CertificatePlan::Prepare };
    let settle = (serving.validity.seconds() / SETTLE_PART).clamp(1, SETTLE_LIMIT);
    match prepared.trusted_since.map(|since| since.saturating_add(settle)) {
        Some(settled) if settled <= now => CertificatePlan::Promote,
        Some(settled) => CertificatePlan::Wait { until: settled },
        None => CertificatePlan::Wait { until: now.saturating_add(1) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVING: Usable = usable(0, 3000);

    const fn usable(not_before: i64, not_after: i64) -> Usable {
        Usable { validity: Validity { not_before, not_after }, names: Names::All }
    }

    const fn lacking(usable: Usable) -> Usable {
        Usable { names: Names::Lacking, ..usable }
    }

    fn prepared(trusted_since: Option<i64>) -> Prepared {
        Prepared { usable: usable(2000, 5000), trusted_since }
    }

    fn plan(now: i64, serving: Option<Usable>, prepared: Option<Prepared>) -> CertificatePlan {
        plan_certificate(now, Decider::Follower, serving, prepared)
    }

    #[test]
    fn a_certificate_is_renewed_well_before_it_expires() {
        assert_eq!(plan(0, Some(SERVING), None), CertificatePlan::Wait { until: 2000 });
        assert_eq!(plan(1999, Some(SERVING), None), CertificatePlan::Wait { until: 2000 });
        assert_eq!(plan(2000, Some(SERVING), None), CertificatePlan::Prepare);
    }

    #[test]
    fn a_new_certificate_is_served_only_when_its_ca_has_been_trusted_for_a_while() {
        let plan = |now, since| plan(now, Some(SERVING), Some(prepared(since)));
        assert_eq!(plan(2001, None), CertificatePlan::Wait { until: 2002 });
        assert_eq!(plan(2010, Some(2010)), CertificatePlan::Wait { until: 2070 });
        assert_eq!(plan(2070, Some(2010)), CertificatePlan::Promote);
    }

    #[test]
    fn without_a_usable_certificate_nobody_waits() {
        assert_eq!(plan(0, None, None), CertificatePlan::Replace);
        assert_eq!(plan(3000, Some(SERVING), None), CertificatePlan::Replace);
    }

    #[test]
    fn a_prepared_certificate_is_served_rather_than_thrown_away() {
        assert_eq!(plan(3000, Some(SERVING), Some(prepared(None))), CertificatePlan::Promote);
        assert_eq!(plan(2500, None, Some(prepared(None))), CertificatePlan::Promote);
        assert_eq!(plan(5000, None, Some(prepared(None))), CertificatePlan::Replace, "it has expired, too");
    }

    /// All controllers were away while it was prepared.
    #[test]
    fn a_prepared_certificate_that_is_old_itself_is_made_anew() {
        let old = Prepared { usable: usable(0, 2500), trusted_since: Some(0) };
        assert_eq!(plan(2000, Some(SERVING), Some(old)), CertificatePlan::Prepare);
    }

    /// Old and new replicas would replace each other's certificates until the upgrade is over.
    #[test]
    fn other_names_are_wanted_by_the_leader_alone_and_what_is_served_goes_on() {
        let (serving, next) =
            (Some(lacking(SERVING)), Prepared { usable: lacking(usable(90, 5000)), trusted_since: None });
        let of = |decider, serving, next| plan_certificate(100, decider, serving, next);
        assert_eq!(of(Decider::Follower, serving, None), CertificatePlan::Wait { until: 2000 });
        assert_eq!(of(Decider::Leader, serving, None), CertificatePlan::Prepare);
        assert_eq!(of(Decider::Leader, Some(SERVING), Some(next)), CertificatePlan::Prepare);
        assert_eq!(of(Decider::Follower, Some(SERVING), Some(next)), CertificatePlan::Wait { until: 101 });
    }
}
