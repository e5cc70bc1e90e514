//! The annotations of a pod, parsed. JSON as Go reads it: member names in any case, unknown members ignored,
//! `null` as absent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::default_route::DefaultRoute;
use super::error::IpamError;
use super::pool_source::PoolSource;
use super::route::{IpamRoute, RouteError};
use crate::Unsupported;
use crate::go_json::from_go_json;
use crate::ip::Family;
use crate::names::{IfName, PoolName};

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

/// Pools by family.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolLists {
    /// IPv4 pools, best first.
    pub ipv4: Vec<PoolName>,
    /// IPv6 pools, best first.
    pub ipv6: Vec<PoolName>,
}

impl PoolLists {
    /// The pools of a family.
    pub fn of(&self, family: Family) -> &[PoolName] {
        match family {
            Family::V4 => &self.ipv4,
            Family::V6 => &self.ipv6,
        }
    }

    /// Names as they come; a wildcard is refused as not supported, so that it never means another pool.
    pub(super) fn parse(
        ipv4: &[String],
        ipv6: &[String],
        named_by: PoolSource,
        invalid: impl Fn(String) -> IpamError,
    ) -> Result<Self, IpamError> {
        let parse = |names: &[String]| {
            names
                .iter()
                .map(|name| {
                    if has_wildcard(name) {
                        let (pattern, place) = (name.clone(), named_by.to_string());
                        return Err(Unsupported::PoolWildcard { pattern, place }.into());
                    }
                    name.parse::<PoolName>().map_err(|e| invalid(e.to_string()))
                })
                .collect::<Result<Vec<_>, _>>()
        };
        Ok(Self { ipv4: parse(ipv4)?, ipv6: parse(ipv6)? })
    }
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
    lists(&item, PoolSource::IppoolAnnotation, key::IPPOOL)
}

fn lists(item: &IppoolsItem, named_by: PoolSource, key: &'static str) -> Result<PoolLists, IpamError> {
    PoolLists::parse(&item.ipv4, &item.ipv6, named_by, |cause| invalid(key, &cause))
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
        let pools = lists(item, PoolSource::IppoolsAnnotation, key::IPPOOLS)?;
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

/// Whether upstream would take a name in a list of pools for a pattern.
pub fn has_wildcard(name: &str) -> bool {
    name.contains(['?', '*']) || (name.contains('[') && name.contains(']'))
}

#[cfg(test)]
mod tests;
