//! Pools that belong to a SpiderSubnet, and those of them that are made for an application.

use super::{meet, network};
use crate::admission::pool::usable;
use crate::admission::ranges;
use crate::field_error::FieldError;
use crate::ip::IpSet;
use crate::ipam::annotations::key::IPPOOL_IP_NUMBER;
use crate::ipam::pool::PoolFields;
use crate::subnet::labels::APP_KEYS;
use crate::subnet::{ControlledPools, Subnet};

/// A new pool cannot be in the network of a SpiderSubnet with another prefix length: it would belong to none, and have
/// addresses that the subnet gives to others.
pub fn other_subnet_faults<'a>(
    new: &PoolFields<'_>,
    subnets: impl IntoIterator<Item = &'a Subnet>,
) -> Vec<FieldError> {
    let Some(network) = network(new.subnet) else { return Vec::new() };
    let others =
        subnets.into_iter().filter(|subnet| subnet.subnet != network && meet(&subnet.subnet, &network));
    let fault = |subnet: &Subnet| {
        let detail = format!(
            "overlap with SpiderSubnet {} which 'spec.subnet' is {}: a pool of it has the same 'spec.subnet'",
            subnet.name, subnet.subnet
        );
        FieldError::invalid("spec.subnet", network, detail)
    };
    others.map(fault).collect()
}

/// A pool has addresses of its subnet alone. Those that it has had before, as of a time without SpiderSubnets, are no
/// fault of a change that adds none.
pub fn outside_fault(
    new: &PoolFields<'_>,
    old: Option<&PoolFields<'_>>,
    subnet: &Subnet,
) -> Option<FieldError> {
    let outside = usable(new)?.difference(&subnet.usable);
    let added = old.and_then(usable).map_or_else(|| outside.clone(), |before| outside.difference(&before));
    let detail = format!(
        "add some IP ranges [{}] that are not contained in controller SpiderSubnet {}: add them to the subnet first",
        ranges::listed(&added),
        subnet.name
    );
    (!added.is_empty()).then(|| FieldError::forbidden("spec.ips", detail))
}

/// An application's pool is for its pods, and nobody else's.
pub fn affinity_faults(new: &PoolFields<'_>) -> Vec<FieldError> {
    const PATH: &str = "spec.podAffinity";
    let Some(affinity) = &new.pod_affinity else {
        let detail = "a pool that is made for an application names the application";
        return vec![FieldError::required(PATH, detail)];
    };
    let labels = affinity.match_labels.into_iter().flatten();
    let labels = labels.filter(|(key, _)| !APP_KEYS.contains(&key.as_str()));
    let labels = labels.map(|(key, value)| format!("matchLabels {key}={value}"));
    let expressions = affinity.match_expressions.iter();
    let expressions = expressions.map(|expression| format!("matchExpressions {}", expression.key));
    let fault = |part| {
        let detail = "it's invalid to add additional podAffinity to a pool that is made for an application";
        FieldError::invalid(PATH, part, detail)
    };
    labels.chain(expressions).map(fault).collect()
}

/// Whether the pool has other addresses than before.
pub fn changes_addresses(new: &PoolFields<'_>, old: Option<&PoolFields<'_>>) -> bool {
    usable(new).is_some_and(|after| old.and_then(usable) != Some(after))
}

/// The addresses of an application's pool are those that its subnet's status has for it: the controller writes them there
/// first, and nobody else gives it any.
pub fn carved_fault(
    new: &PoolFields<'_>,
    old: Option<&PoolFields<'_>>,
    subnet: &str,
    records: &ControlledPools,
) -> Option<FieldError> {
    if !changes_addresses(new, old) {
        return None;
    }
    let after = usable(new)?;
    let recorded =
        records.0.get(new.name).map_or_else(|| IpSet::empty(after.family()), |record| record.ips.clone());
    let detail = format!(
        "it's illegal to update AutoPool.Spec.IPs that are different from those that SpiderSubnet {subnet} has for the pool \
         in status.controlledIPPools: [{}], and not [{}]; the Pod annotation {IPPOOL_IP_NUMBER} says how many the \
         application gets",
        ranges::listed(&recorded),
        ranges::listed(&after)
    );
    (after != recorded).then(|| FieldError::forbidden("spec.ips", detail))
}
