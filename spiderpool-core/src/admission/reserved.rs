//! SpiderReservedIPs: what is filled in, and what is refused. Overlaps with pools are meant: an address in use stays with
//! its pod until the pod is gone.

use super::{Families, unsupported_version};
use crate::field_error::FieldError;
use crate::ip::{Family, IpRange};

/// The spec of a SpiderReservedIP, as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReservedFields<'a> {
    /// `spec.ipVersion`.
    pub ip_version: Option<i64>,
    /// `spec.ips`.
    pub ips: &'a [String],
}

impl ReservedFields<'_> {
    /// The family of the first entry, for an absent `ipVersion`.
    pub fn inferred_version(&self) -> Option<i64> {
        let first: IpRange = self.ips.first()?.parse().ok()?;
        Some(first.family().version())
    }
}

/// All faults of a new object, or of one that replaces `old`.
pub fn reserved_faults(
    new: &ReservedFields<'_>,
    old: Option<&ReservedFields<'_>>,
    families: Families,
) -> Vec<FieldError> {
    let mut faults: Vec<_> = unsupported_version(new.ip_version).into_iter().collect();
    let version = new.ip_version.or_else(|| new.inferred_version());
    let family = version.and_then(Family::from_version);
    if new.ips.is_empty() {
        faults.push(FieldError::required("spec.ips", "at least one address or range"));
    }
    if let Some(refusal) = family.and_then(|family| families.refusal(family)) {
        faults.push(FieldError::forbidden("spec.ipVersion", refusal));
    }
    let before = old.and_then(|old| old.ip_version.or_else(|| old.inferred_version()));
    if before.is_some() && version.is_some() && version != before {
        faults.push(FieldError::forbidden("spec.ipVersion", "is not changeable"));
    }
    for (index, text) in new.ips.iter().enumerate() {
        let detail = match (text.parse::<IpRange>(), family) {
            (Err(problem), _) => problem.to_string(),
            (Ok(range), Some(family)) if range.family() != family => {
                format!("is {}, but spec.ipVersion says {family}", range.family())
            }
            (Ok(_), _) => continue,
        };
        faults.push(FieldError::invalid(format!("spec.ips[{index}]"), text, detail));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: Families = Families { v4: true, v6: true };

    fn faults(version: Option<i64>, ips: &[&str], old: Option<i64>, families: Families) -> Vec<String> {
        let ips: Vec<_> = ips.iter().map(ToString::to_string).collect();
        let old = old.map(|version| ReservedFields { ip_version: Some(version), ips: &[] });
        let new = ReservedFields { ip_version: version, ips: &ips };
        reserved_faults(&new, old.as_ref(), families).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_object_has_no_fault_with_or_without_version() {
        assert_eq!(faults(None, &["10.0.0.1", "10.0.0.4-10.0.0.9"], None, BOTH), [""; 0]);
        assert_eq!(faults(Some(6), &["fd00::1"], Some(6), BOTH), [""; 0]);
    }

    #[test]
    fn every_fault_is_in_one_answer() {
        assert_eq!(
            faults(Some(4), &["10.0.0.9-10.0.0.1", "fd00::1"], Some(6), Families { v4: false, v6: true }),
            [
                "spec.ipVersion: Forbidden: IPv4 is disabled",
                "spec.ipVersion: Forbidden: is not changeable",
                "spec.ips[0]: Invalid value: \"10.0.0.9-10.0.0.1\": IP range \"10.0.0.9-10.0.0.1\" is reversed: the first \
                 address is above the last",
                "spec.ips[1]: Invalid value: \"fd00::1\": is IPv6, but spec.ipVersion says IPv4",
            ]
        );
        assert_eq!(
            faults(None, &[], None, BOTH),
            ["spec.ips: Required value: at least one address or range"]
        );
    }
}
