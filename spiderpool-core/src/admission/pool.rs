//! SpiderIPPools: what is filled in, and what is refused.

mod in_use;
mod overlap;

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{Families, ranges, unsupported_version};
use crate::field_error::FieldError;
use crate::ip::{Family, IpSet};
use crate::ipam::pool::{Pool, PoolError, PoolFault, PoolFields, PoolProblem};

pub use in_use::{deletion_fault, in_use_fault};
pub use overlap::overlap_faults;

/// What a webhook fills in; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolDefaults {
    /// `spec.ipVersion`.
    pub ip_version: Option<i64>,
    /// `spec.ips`.
    pub ips: Option<Vec<String>>,
    /// `spec.excludeIPs`.
    pub exclude_ips: Option<Vec<String>>,
    /// The label with the subnet.
    pub subnet_label: Option<String>,
}

/// What is filled in of a pool.
pub fn pool_defaults(fields: &PoolFields<'_>) -> PoolDefaults {
    let subnet = fields.subnet.parse::<IpNet>().ok();
    let ips = ranges::canonical(fields.ips).filter(|ips| {
        // The network's own address is usable where it is named singly: no longer if it became part of a range.
        let joined = PoolFields { ips, ..address_fields(fields) };
        usable(&joined).is_none_or(|joined| usable(fields) == Some(joined))
    });
    PoolDefaults {
        ip_version: subnet
            .filter(|_| fields.ip_version.is_none())
            .map(|subnet| Family::of_net(&subnet).version()),
        ips,
        exclude_ips: ranges::canonical(fields.exclude_ips),
        subnet_label: subnet
            .filter(|subnet| subnet.trunc() == *subnet)
            .map(|subnet| ranges::subnet_label(&subnet))
            // That of ::/64 is no label's value.
            .filter(|label| label.starts_with(|first: char| first.is_ascii_alphanumeric())),
    }
}

/// The usable addresses, whatever else is wrong with the pool; `None` where the fields with addresses do not parse.
pub fn usable(fields: &PoolFields<'_>) -> Option<IpSet> {
    Pool::parse(&address_fields(fields)).ok().map(|pool| pool.usable)
}

/// The pool reduced to the fields that say which addresses it has.
pub fn address_fields<'a>(fields: &PoolFields<'a>) -> PoolFields<'a> {
    PoolFields {
        name: fields.name,
        subnet: fields.subnet,
        ips: fields.ips,
        exclude_ips: fields.exclude_ips,
        disable: fields.disable,
        ..PoolFields::default()
    }
}

/// All that is wrong with a new pool, or one that replaces `old`, as far as the pool alone says it.
pub fn pool_faults(
    new: &PoolFields<'_>,
    old: Option<&PoolFields<'_>>,
    families: Families,
) -> Vec<FieldError> {
    let mut faults: Vec<_> = unsupported_version(new.ip_version).into_iter().collect();
    let subnet = new.subnet.parse::<IpNet>().ok();
    if let Some(refusal) = subnet.and_then(|subnet| families.refusal(Family::of_net(&subnet))) {
        faults.push(FieldError::forbidden("spec.subnet", refusal));
    }
    faults.extend(old.into_iter().flat_map(|old| changed_faults(new, old)));
    if let Err(PoolError { faults: parsed, .. }) = Pool::parse(new) {
        faults.extend(parsed.iter().map(|fault| field_error(new, fault)));
    }
    faults.extend(route_faults(new, subnet));
    let is_empty = |fields: &crate::label_selector::SelectorFields<'_>| {
        fields.match_labels.is_none_or(std::collections::BTreeMap::is_empty)
            && fields.match_expressions.is_empty()
    };
    if new.pod_affinity.as_ref().is_some_and(is_empty) {
        let detail =
            "empty podAffinity is invalid for SpiderIPPool: leave it out, and all Pods may use the pool";
        faults.push(FieldError::invalid("spec.podAffinity", "{}", detail));
    }
    faults
}

/// A subnet that is not one has given nobody an address: it may be corrected.
fn changed_faults(new: &PoolFields<'_>, old: &PoolFields<'_>) -> Vec<FieldError> {
    const DETAIL: &str = "is not changeable";
    let mut faults = Vec::new();
    let before = old.subnet.parse::<IpNet>().ok().filter(|subnet| subnet.trunc() == *subnet);
    let Some(before) = before else { return faults };
    if new.subnet.parse() != Ok(before) {
        faults.push(FieldError::forbidden("spec.subnet", DETAIL));
    }
    if new.ip_version.is_some_and(|version| version != Family::of_net(&before).version()) {
        faults.push(FieldError::forbidden("spec.ipVersion", DETAIL));
    }
    faults
}

fn route_faults(fields: &PoolFields<'_>, subnet: Option<IpNet>) -> Vec<FieldError> {
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for (index, (dst, gw)) in fields.routes.iter().enumerate() {
        // What does not parse is named already.
        let (Ok(dst), Ok(gw)) = (dst.parse::<IpNet>(), gw.parse::<IpAddr>()) else { continue };
        let path = |field: &str| format!("spec.routes[{index}].{field}");
        if dst.prefix_len() == 0 {
            let detail = "please specify 'spec.gateway' to configure the default route";
            faults.push(FieldError::invalid(path("dst"), dst, detail));
        }
        if !seen.insert(dst.trunc()) {
            faults.push(FieldError::duplicate(path("dst"), dst));
        }
        let Some(subnet) = subnet else { continue };
        if Family::of_net(&dst) == Family::of(gw) && !subnet.contains(&gw) {
            faults.push(FieldError::invalid(
                path("gw"),
                gw,
                format!("is not an address of spec.subnet {subnet}"),
            ));
        }
    }
    faults
}

fn field_error(fields: &PoolFields<'_>, fault: &PoolFault) -> FieldError {
    let path = fault.path.as_str();
    let detail = fault.problem.to_string();
    match &fault.problem {
        PoolProblem::Subnet(value) => FieldError::invalid(path, value, "is not a network in CIDR form"),
        PoolProblem::Gateway(value) => FieldError::invalid(path, value, "is not an address"),
        _ => FieldError::invalid(path, value_at(fields, path), detail),
    }
}

/// What the field holds, as far as a text says it.
fn value_at(fields: &PoolFields<'_>, path: &str) -> String {
    let element =
        |list: &str| path.strip_prefix(list)?.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok();
    let of_list = |list: &str, texts: &[String]| texts.get(element(list)?).cloned();
    let route = || {
        let (dst, gw) = fields.routes.get(element("spec.routes")?)?;
        Some(format!("{dst} via {gw}"))
    };
    match path {
        "metadata.name" => fields.name.to_owned(),
        "spec.subnet" => fields.subnet.to_owned(),
        "spec.gateway" => fields.gateway.unwrap_or_default().to_owned(),
        "spec.ipVersion" => fields.ip_version.map(|version| version.to_string()).unwrap_or_default(),
        _ => of_list("spec.ips", fields.ips)
            .or_else(|| of_list("spec.excludeIPs", fields.exclude_ips))
            .or_else(route)
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
