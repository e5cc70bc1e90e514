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

/// The next certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Prepared {
    pub(super) validity: Validity,
    /// Since when the API server has been told of its CA; `None` if it has not.
    pub(super) trusted_since: Option<i64>,
}

/// `serving` and `prepared` are `None` where there is none that can be used.
pub(super) fn plan_certificate(
    now: i64,
    serving: Option<Validity>,
    prepared: Option<Prepared>,
) -> CertificatePlan {
    let Some(serving) = serving.filter(|serving| now < serving.not_after) else {
        return CertificatePlan::Replace;
    };
    if now < serving.renewal() && prepared.is_none() {
        return CertificatePlan::Wait { until: serving.renewal() };
    }
    let Some(prepared) = prepared.filter(|prepared| now < prepared.validity.renewal()) else {
        return CertificatePlan::Prepare;
    };
    let settle = (serving.seconds() / SETTLE_PART).clamp(1, SETTLE_LIMIT);
    match prepared.trusted_since.map(|since| since.saturating_add(settle)) {
        Some(settled) if settled <= now => CertificatePlan::Promote,
        Some(settled) => CertificatePlan::Wait { until: settled },
        None => CertificatePlan::Wait { until: now.saturating_add(1) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVING: Validity = Validity { not_before: 0, not_after: 3000 };

    fn prepared(trusted_since: Option<i64>) -> Prepared {
        Prepared { validity: Validity { not_before: 2000, not_after: 5000 }, trusted_since }
    }

    #[test]
    fn a_certificate_is_renewed_well_before_it_expires() {
        assert_eq!(plan_certificate(0, Some(SERVING), None), CertificatePlan::Wait { until: 2000 });
        assert_eq!(plan_certificate(1999, Some(SERVING), None), CertificatePlan::Wait { until: 2000 });
        assert_eq!(plan_certificate(2000, Some(SERVING), None), CertificatePlan::Prepare);
    }

    #[test]
    fn a_new_certificate_is_served_only_when_its_ca_has_been_trusted_for_a_while() {
        let plan = |now, since| plan_certificate(now, Some(SERVING), Some(prepared(since)));
        assert_eq!(plan(2001, None), CertificatePlan::Wait { until: 2002 });
        assert_eq!(plan(2010, Some(2010)), CertificatePlan::Wait { until: 2070 });
        assert_eq!(plan(2070, Some(2010)), CertificatePlan::Promote);
    }

    #[test]
    fn without_a_usable_certificate_nobody_waits() {
        assert_eq!(plan_certificate(0, None, None), CertificatePlan::Replace);
        assert_eq!(plan_certificate(3000, Some(SERVING), Some(prepared(None))), CertificatePlan::Replace);
    }

    /// All controllers were away while it was prepared.
    #[test]
    fn a_prepared_certificate_that_is_old_itself_is_made_anew() {
        let old = Prepared { validity: Validity { not_before: 0, not_after: 1500 }, trusted_since: Some(0) };
        assert_eq!(plan_certificate(2000, Some(SERVING), Some(old)), CertificatePlan::Prepare);
    }
}
