//! Which pools the NICs of a pod may draw from, by the source that comes first. Sources are never mixed: a source
//! that is there but names nothing useful is an error, never a reason to take the next one.

use std::collections::BTreeMap;

use super::annotations::{PodAnnotations, key, pools_of_namespace};
use super::default_route::DefaultRoute;
use super::error::IpamError;
use super::pool_list::{self, PoolLists, PoolReference, PoolWildcard};
use super::pool_source::PoolSource;
use crate::Unsupported;
use crate::ip::Family;
use crate::names::{IfName, PoolName};

/// The pools that are made for applications which name a subnet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoPools<'a> {
    /// Those of the NIC that is being added, and their families; looked up where the pod's annotations speak of a subnet.
    Enabled(&'a [(PoolName, Family)]),
    /// `enableSpiderSubnet` or `enableAutoPoolForApplication` is off.
    Disabled,
}

/// What decides about a NIC's pools.
#[derive(Debug, Clone)]
pub struct CandidateRequest<'a> {
    /// The NIC that is being added.
    pub nic: &'a IfName,
    /// The families that the configuration enables.
    pub families: &'a [Family],
    /// The pod's annotations.
    pub annotations: &'a PodAnnotations,
    /// Its namespace.
    pub namespace: &'a str,
    /// The annotations of its namespace.
    pub namespace_annotations: &'a BTreeMap<String, String>,
    /// IPv4 pools of the CNI configuration.
    pub cni_ipv4: &'a [String],
    /// IPv6 pools of the CNI configuration.
    pub cni_ipv6: &'a [String],
    /// `clean_gateway` of the CNI configuration.
    pub cni_default_route: DefaultRoute,
    /// `match_master_subnet` of the CNI configuration.
    pub match_master_subnet: bool,
    /// What serves subnet annotations.
    pub auto_pools: AutoPools<'a>,
    /// The pools with `spec.default`, and their families. One that is invalid is among them if it is missed.
    pub default_pools: &'a [(PoolName, Family)],
}

/// One address that is wanted: a NIC, a family, and where it may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCandidates {
    /// The NIC.
    pub nic: IfName,
    /// The family.
    pub family: Family,
    /// What names the pools.
    pub named_by: PoolSource,
    /// The pools, best first. None where wildcards are all that is listed and no pool matches: an address that the NIC
    /// holds stays.
    pub pools: Vec<PoolName>,
    /// The wildcards that are listed.
    pub wildcards: Vec<String>,
    /// Whether the NIC gets a default route.
    pub default_route: DefaultRoute,
}

/// The addresses that are wanted. The annotation `ippools` speaks of all NICs of the pod, everything else of the
/// one that is being added. `matching` answers with the pools whose names a wildcard matches, and their families as far as
/// they are known.
pub fn plan_candidates(
    request: &CandidateRequest<'_>,
    matching: impl Fn(&PoolWildcard) -> Vec<(PoolName, Option<Family>)>,
) -> Result<Vec<PoolCandidates>, IpamError> {
    if request.match_master_subnet {
        return Err(Unsupported::MatchMasterSubnet(request.nic.clone()).into());
    }
    let (named_by, nics) = choose_source(request)?;
    let mut candidates = Vec::new();
    for (nic, lists, default_route) in nics {
        for &family in request.families {
            let list = lists.of(family);
            let pools = pool_list::expand(list, family, &nic, &matching)?;
            if !list.is_empty() {
                let wildcards = pool_list::wildcards(list);
                let nic = nic.clone();
                candidates.push(PoolCandidates { nic, family, named_by, pools, wildcards, default_route });
            }
        }
        if !candidates.iter().any(|candidate| candidate.nic == nic) {
            return Err(IpamError::NoPoolOfFamily { named_by, nic });
        }
    }
    Ok(candidates)
}

type NicPoolLists = (IfName, PoolLists, DefaultRoute);

fn choose_source(request: &CandidateRequest<'_>) -> Result<(PoolSource, Vec<NicPoolLists>), IpamError> {
    let one = |lists: PoolLists| vec![(request.nic.clone(), lists, request.cni_default_route)];
    if request.annotations.wants_subnet {
        let AutoPools::Enabled(pools) = request.auto_pools else { return Err(IpamError::AutoPoolDisabled) };
        return Ok((PoolSource::SubnetAnnotations, one(lists_by_name(pools))));
    }
    if let Some(nics) = &request.annotations.ippools {
        if !nics.iter().any(|entry| entry.nic == *request.nic) {
            let cause = format!("interface {} must be specified", request.nic);
            return Err(IpamError::Annotation { key: key::IPPOOLS, cause });
        }
        let nics = nics.iter().map(|e| (e.nic.clone(), e.pools.clone(), e.default_route)).collect();
        return Ok((PoolSource::IppoolsAnnotation, nics));
    }
    if let Some(lists) = &request.annotations.ippool {
        return Ok((PoolSource::IppoolAnnotation, one(lists.clone())));
    }
    let lists = pools_of_namespace(request.namespace, request.namespace_annotations)?;
    if !lists.is_empty() {
        return Ok((PoolSource::NamespaceAnnotations, one(lists)));
    }
    if !request.cni_ipv4.is_empty() || !request.cni_ipv6.is_empty() {
        let invalid = |cause| IpamError::CniPools { nic: request.nic.clone(), cause };
        let named_by = PoolSource::CniConfiguration;
        let lists = PoolLists::parse(request.cni_ipv4, request.cni_ipv6, invalid)?;
        return Ok((named_by, one(lists)));
    }
    if request.default_pools.is_empty() {
        return Err(IpamError::NoSource);
    }
    Ok((PoolSource::ClusterDefault, one(lists_by_name(request.default_pools))))
}

/// Pools that have no order of their own: by name, so that every agent tries them alike.
fn lists_by_name(pools: &[(PoolName, Family)]) -> PoolLists {
    let of = |family: Family| {
        let mut names: Vec<_> =
            pools.iter().filter(|(_, f)| *f == family).map(|(name, _)| name.clone()).collect();
        names.sort();
        names.into_iter().map(PoolReference::Name).collect()
    };
    PoolLists { ipv4: of(Family::V4), ipv6: of(Family::V6) }
}

#[cfg(test)]
mod tests;
