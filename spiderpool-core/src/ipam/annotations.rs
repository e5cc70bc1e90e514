//! The annotations of a pod, parsed. JSON as Go reads it: member names in any case, unknown members ignored,
//! `null` as absent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::default_route::DefaultRoute;
use super::error::IpamError;
use super::pool_list::PoolLists;
use super::route::{IpamRoute, RouteError};
use crate::go_json::from_go_json;
use crate::names::IfName;

pub use super::annotation_key as key;

/// What a pod's annotations ask of IPAM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodAnnotations {
    /// A subnet annotation is present.
    pub wants_subnet: bool,
    /// `ippools`, with names for all NICs.
    pub ippools: Option<Vec<NicPools>>,
    /// `ippool`; not looked at when `ippools` is there.
    pub ippool: Option<PoolLists>,
    /// `routes`.
    pub routes: Vec<IpamRoute>,
}

/// Pools of one NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicPools {
    /// The NIC.
    pub nic: IfName,
    /// Its pools.
    pub pools: PoolLists,
    /// Whether it gets a default route.
    pub default_route: DefaultRoute,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IppoolsItem {
    interface: String,
    ipv4: Vec<String>,
    ipv6: Vec<String>,
    cleangateway: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RouteItem {
    dst: String,
    gw: String,
}

impl PodAnnotations {
    /// Parses what is there. The first annotation that does not parse fails the pod.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, IpamError> {
        let get = |key: &str| annotations.get(key).map(String::as_str);
        let ippools =
            get(key::IPPOOLS).map(|text| parse_ippools(text, get(key::MULTUS_NETWORKS))).transpose()?;
        let ippool = get(key::IPPOOL).filter(|_| ippools.is_none()).map(parse_ippool).transpose()?;
        Ok(Self {
            wants_subnet: get(key::SUBNETS).or(get(key::SUBNET)).is_some(),
            ippools,
            ippool,
            routes: get(key::ROUTES).map(parse_routes).transpose()?.unwrap_or_default(),
        })
    }
}

fn invalid(key: &'static str, cause: &impl ToString) -> IpamError {
    IpamError::Annotation { key, cause: cause.to_string() }
}

fn parse_ippool(text: &str) -> Result<PoolLists, IpamError> {
    let item: IppoolsItem = from_go_json(text).map_err(|e| invalid(key::IPPOOL, &e))?;
    lists(&item, key::IPPOOL)
}

fn lists(item: &IppoolsItem, key: &'static str) -> Result<PoolLists, IpamError> {
    PoolLists::parse(&item.ipv4, &item.ipv6, |cause| invalid(key, &cause))
}

/// The pools that a namespace's annotations list for its pods; empty if they list none.
pub fn pools_of_namespace(
    namespace: &str,
    annotations: &BTreeMap<String, String>,
) -> Result<PoolLists, IpamError> {
    let invalid = |key: &'static str, cause: String| IpamError::NamespaceAnnotation {
        namespace: namespace.to_owned(),
        key,
        cause,
    };
    let list = |key: &'static str| {
        let text = annotations.get(key).map_or("null", String::as_str);
        let list =
            from_go_json::<Option<Vec<String>>>(text).map_err(|error| invalid(key, error.to_string()))?;
        Ok::<_, IpamError>(list.unwrap_or_default())
    };
    let of =
        |ipv4: &[String], ipv6: &[String], key| PoolLists::parse(ipv4, ipv6, |cause| invalid(key, cause));
    let ipv4 = of(&list(key::NAMESPACE_IPV4_POOLS)?, &[], key::NAMESPACE_IPV4_POOLS)?.ipv4;
    let ipv6 = of(&[], &list(key::NAMESPACE_IPV6_POOLS)?, key::NAMESPACE_IPV6_POOLS)?.ipv6;
    Ok(PoolLists { ipv4, ipv6 })
}

fn parse_ippools(text: &str, networks: Option<&str>) -> Result<Vec<NicPools>, IpamError> {
    let wrong = |cause: &str| invalid(key::IPPOOLS, &cause);
    let items: Vec<IppoolsItem> =
        from_go_json::<Option<_>>(text).map_err(|e| invalid(key::IPPOOLS, &e))?.unwrap_or_default();
    if items.is_empty() {
        return Err(wrong("value requires at least one item"));
    }
    let unnamed = items.iter().filter(|item| item.interface.is_empty()).count();
    if unnamed != 0 && unnamed != items.len() {
        return Err(wrong("NIC should be either all specified or all unspecified"));
    }
    let names = if unnamed == 0 {
        items
            .iter()
            .map(|item| item.interface.parse().map_err(|e| invalid(key::IPPOOLS, &e)))
            .collect::<Result<Vec<IfName>, _>>()?
    } else {
        nics_in_order(networks)?
    };
    if names.len() < items.len() {
        return Err(wrong(&format!(
            "it has {} items without interface, but the pod has {} NICs by its annotation '{}'",
            items.len(),
            names.len(),
            key::MULTUS_NETWORKS
        )));
    }
    let mut result: Vec<NicPools> = Vec::with_capacity(items.len());
    for (item, nic) in items.iter().zip(names) {
        if result.iter().any(|earlier| earlier.nic == nic) {
            return Err(wrong(&format!("duplicate interface {nic}")));
        }
        let default_route = if item.cleangateway { DefaultRoute::Clean } else { DefaultRoute::Keep };
        let pools = lists(item, key::IPPOOLS)?;
        result.push(NicPools { nic, pools, default_route });
    }
    Ok(result)
}

/// The pod's NICs as Multus makes them: eth0, then one per network.
fn nics_in_order(networks: Option<&str>) -> Result<Vec<IfName>, IpamError> {
    let first = "eth0".parse().map_err(|e| invalid(key::IPPOOLS, &e))?;
    let rest = networks
        .map(super::multus::interfaces)
        .transpose()
        .map_err(|e| invalid(key::MULTUS_NETWORKS, &e))?
        .unwrap_or_default();
    Ok([first].into_iter().chain(rest).collect())
}

fn parse_routes(text: &str) -> Result<Vec<IpamRoute>, IpamError> {
    let items: Vec<RouteItem> =
        from_go_json::<Option<_>>(text).map_err(|e| invalid(key::ROUTES, &e))?.unwrap_or_default();
    items
        .iter()
        .map(|item| {
            IpamRoute::parse(&item.dst, &item.gw)
                .map_err(|e: RouteError| invalid(key::ROUTES, &format!("invalid route format, {e}")))
        })
        .collect()
}

#[cfg(test)]
mod tests;
