//! SpiderSubnet: version, label and canonical ranges; everything that is wrong with the spec, other subnets and pools in its
//! network, and addresses of pools that it would lose.

use std::collections::BTreeMap;

use serde::Deserialize as _;
use serde_json::Value;
use spiderpool_api::crd::{FINALIZER, SpiderSubnet, subnet_fields};
use spiderpool_api::labels;
use spiderpool_core::admission::Families;
use spiderpool_core::admission::pool::{pool_defaults, pool_faults};
use spiderpool_core::admission::subnet::{deletion_fault, held, held_faults, overlap_faults, service_fault};
use spiderpool_core::field_error::FieldError;
use spiderpool_core::ip::{Family, IpSet};
use spiderpool_core::subnet::ControlledPools;
use spiderpool_runtime::watch::Shared;

use super::completion::fill_in;
use super::known::KnownObjects;
use super::response::Verdict;

/// What the author of a subnet learns where it is of no use.
const OFF: &str =
    "no pool gets addresses of a SpiderSubnet here: ipam.spiderSubnet.enable (enableSpiderSubnet) is false";

/// Fills in what is absent. The finalizer is the leader's.
pub(super) fn mutate(object: &mut Value) {
    let Ok(subnet) = SpiderSubnet::deserialize(&*object) else { return };
    let defaults = pool_defaults(&subnet_fields(&subnet));
    fill_in(object, defaults, labels::SUBNET_CIDR);
}

/// What the decision about a subnet needs.
pub(super) struct SubnetValidator {
    pub(super) known: Shared<KnownObjects>,
    pub(super) families: Families,
    /// Whether pools belong to subnets.
    pub(super) enabled: bool,
    /// Whether a subnet of which pools have addresses may not be deleted.
    pub(super) guards_deletion: bool,
}

impl SubnetValidator {
    /// All faults of a new subnet, or of one that replaces `old`.
    pub(super) fn validate(&self, new: &SpiderSubnet, old: Option<&SpiderSubnet>) -> Verdict {
        if new.metadata.deletion_timestamp.is_some() {
            let holds = new.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
            let fault = FieldError::forbidden("spec", "cannot update a terminating SpiderSubnet");
            return if holds { vec![fault].into() } else { Verdict::default() };
        }
        let (fields, before) = (subnet_fields(new), old.map(subnet_fields));
        let mut faults = pool_faults(&fields, before.as_ref(), self.families);
        let held = self.held(old.unwrap_or(new));
        faults.extend(self.known.read(|known| {
            let pools = known.valid_pools().map(AsRef::as_ref);
            let overlaps = overlap_faults(&fields, before.as_ref(), known.valid_subnets(), pools);
            let of_services = service_fault(&fields, &known.coordinators.service_cidrs());
            overlaps.into_iter().chain(of_services).collect::<Vec<_>>()
        }));
        faults.extend(held_faults(&fields, before.as_ref(), &held));
        let warnings = if self.enabled { Vec::new() } else { vec![OFF.to_owned()] };
        Verdict { faults, warnings }
    }

    /// Why the subnet may not be deleted.
    pub(super) fn validate_deletion(&self, subnet: &SpiderSubnet) -> Verdict {
        // One that is being deleted is deleted once more by the leader, pools first.
        let guards = self.guards_deletion && subnet.metadata.deletion_timestamp.is_none();
        let fault = if guards { deletion_fault(&self.held(subnet)) } else { None };
        fault.into_iter().collect::<Vec<_>>().into()
    }

    /// What pools have of it. The records come with the object that is replaced, which the API server has locked: no pool
    /// gets an address between the answer and the write. Where pools do not belong to subnets, nobody corrects records.
    fn held(&self, subnet: &SpiderSubnet) -> BTreeMap<String, IpSet> {
        let Ok(network) = subnet.spec.subnet.parse() else { return BTreeMap::new() };
        let text = subnet.status.as_ref().and_then(|status| status.controlled_ip_pools.as_deref());
        let records = ControlledPools::parse(text.filter(|_| self.enabled), Family::of_net(&network));
        self.known.read(|known| {
            let members = known.valid_pools().map(AsRef::as_ref).filter(|pool| pool.subnet == network);
            held(&records, members)
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Nobody corrects records there.
    #[test]
    fn where_pools_belong_to_no_subnet_records_do_not_count_and_the_author_is_told() {
        let subnet = |ips: &str| -> SpiderSubnet {
            let records = r#"{"gone": {"ips": ["10.6.0.9"]}}"#;
            let object = json!({
                "metadata": {"name": "s"}, "spec": {"subnet": "10.6.0.0/16", "ips": [ips]},
                "status": {"controlledIPPools": records},
            });
            serde_json::from_value(object).unwrap()
        };
        let (old, new) = (subnet("10.6.0.1-10.6.0.9"), subnet("10.6.0.1-10.6.0.8"));
        for (enabled, expected) in [(true, (1, 0, 1)), (false, (0, 1, 0))] {
            let validator = validator(enabled);
            let verdict = validator.validate(&new, Some(&old));
            let deletion = validator.validate_deletion(&old).faults.len();
            assert_eq!((verdict.faults.len(), verdict.warnings.len(), deletion), expected);
        }
    }

    fn validator(enabled: bool) -> SubnetValidator {
        let families = Families { v4: true, v6: true };
        SubnetValidator { known: Shared::default(), families, enabled, guards_deletion: true }
    }

    /// Whoever removes the last finalizer writes one, too.
    #[test]
    fn one_that_is_being_deleted_cannot_be_changed_until_the_leader_has_let_it_go() {
        let terminating = |finalizers: &[&str]| -> SpiderSubnet {
            let object = json!({
                "metadata": {"name": "s", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers},
                "spec": {"subnet": "10.6.0.0/16"},
            });
            serde_json::from_value(object).unwrap()
        };
        let old = terminating(&[FINALIZER, "example.com/held"]);
        let verdict = validator(true).validate(&old, Some(&old));
        assert_eq!(
            verdict.faults[0].to_string(),
            "spec: Forbidden: cannot update a terminating SpiderSubnet"
        );
        let verdict = validator(true).validate(&terminating(&["example.com/held"]), Some(&old));
        assert_eq!(verdict.faults.len(), 0);
    }

    #[test]
    fn version_label_and_ranges_are_filled_in() {
        let mut subnet = json!({
            "metadata": {"name": "s"}, "spec": {"subnet": "fd00::/64", "ips": ["fd00::2", "fd00::1"], "excludeIPs": []},
        });
        mutate(&mut subnet);
        assert_eq!(
            subnet,
            json!({
                "metadata": {"name": "s", "labels": {"ipam.spidernet.io/subnet-cidr": "fd00---64"}},
                "spec": {"subnet": "fd00::/64", "ipVersion": 6, "ips": ["fd00::1-fd00::2"], "excludeIPs": []},
            })
        );
    }
}
