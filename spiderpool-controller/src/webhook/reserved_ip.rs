//! SpiderReservedIP: version and canonical ranges; entries that are no ranges, because of which no pod would get an
//! address of the family.

use serde::Deserialize as _;
use serde_json::{Value, json};
use spiderpool_api::crd::SpiderReservedIP;
use spiderpool_core::admission::reserved::{ReservedFields, reserved_faults};
use spiderpool_core::admission::{Families, ranges};

use super::members::members_mut;
use super::response::Verdict;

/// Fills in `ipVersion` and joins the ranges.
pub(super) fn mutate(object: &mut Value) {
    let Ok(reserved) = SpiderReservedIP::deserialize(&*object) else { return };
    let fields = fields(&reserved);
    let Some(spec) = members_mut(object, &["spec"]) else { return };
    if let Some(version) = fields.inferred_version().filter(|_| fields.ip_version.is_none()) {
        spec.insert("ipVersion".to_owned(), json!(version));
    }
    if let Some(ips) = ranges::canonical(fields.ips) {
        spec.insert("ips".to_owned(), json!(ips));
    }
}

/// All faults of the spec.
pub(super) fn validate(
    new: &SpiderReservedIP,
    old: Option<&SpiderReservedIP>,
    families: Families,
) -> Verdict {
    reserved_faults(&fields(new), old.map(fields).as_ref(), families).into()
}

fn fields(object: &SpiderReservedIP) -> ReservedFields<'_> {
    ReservedFields { ip_version: object.spec.ip_version, ips: &object.spec.ips }
}
