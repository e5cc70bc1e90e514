//! A pool, parsed: what a SpiderIPPool means once its texts are addresses.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use super::response::{Route, RouteError};
use crate::ip::{Family, IpRange, IpRangeError, IpSet};
use crate::names::{NameError, PoolName};

/// The members of a SpiderIPPool that decide, as texts.
#[derive(Debug, Clone, Copy, Default)]
pub struct PoolFields<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `spec.ipVersion`.
    pub ip_version: Option<i64>,
    /// `spec.subnet`.
    pub subnet: &'a str,
    /// `spec.ips`.
    pub ips: &'a [String],
    /// `spec.excludeIPs`.
    pub exclude_ips: &'a [String],
    /// `spec.gateway`.
    pub gateway: Option<&'a str>,
    /// `spec.nodeName`.
    pub node_names: &'a [String],
    /// `spec.namespaceName`.
    pub namespace_names: &'a [String],
    /// Selectors that are set.
    pub selectors: Selectors,
    /// `spec.default`.
    pub default: bool,
    /// `spec.disable`.
    pub disable: bool,
    /// `metadata.deletionTimestamp` is set.
    pub terminating: bool,
}

/// Which rules of a pool are set that look at more than a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Selectors {
    /// `spec.podAffinity`.
    pub pod: bool,
    /// `spec.nodeAffinity`.
    pub node: bool,
    /// `spec.namespaceAffinity`.
    pub namespace: bool,
    /// `spec.multusName` has an entry.
    pub multus: bool,
}

/// A pool whose spec makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its name.
    pub name: PoolName,
    /// The subnet; its prefix length is that of the addresses handed out.
    pub subnet: IpNet,
    /// `ips` without `excludeIPs`.
    pub usable: IpSet,
    /// Next hop of the default route.
    pub gateway: Option<IpAddr>,
    /// Further routes.
    pub routes: Vec<Route>,
    /// Nodes that may use it; none listed means all.
    pub node_names: Vec<String>,
    /// Namespaces that may use it; none listed means all.
    pub namespace_names: Vec<String>,
    /// Rules that are set beside the names.
    pub selectors: Selectors,
    /// Used by pods that name no pool.
    pub default: bool,
    /// No new addresses.
    pub disabled: bool,
    /// Being deleted.
    pub terminating: bool,
}

/// Why a pool cannot be used: its spec does not make sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("IPPool {pool} is invalid: {cause}")]
pub struct PoolError {
    /// The pool.
    pub pool: String,
    /// What is wrong.
    pub cause: Box<PoolFault>,
}

/// What is wrong with a pool.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PoolFault {
    /// The name.
    #[error(transparent)]
    Name(NameError),
    /// The subnet does not parse.
    #[error("spec.subnet {0:?} is not a network in CIDR form")]
    Subnet(String),
    /// The subnet has host bits.
    #[error("unformatted spec.subnet {found}, please change it to {network}")]
    HostBits {
        /// As written.
        found: IpNet,
        /// As it should be.
        network: IpNet,
    },
    /// `ipVersion` does not fit.
    #[error("spec.ipVersion is {found}, but spec.subnet {subnet} is {family}")]
    Version {
        /// As written.
        found: i64,
        /// The subnet.
        subnet: IpNet,
        /// Its family.
        family: Family,
    },
    /// A range does not parse.
    #[error("spec.{field}: {source}")]
    Range {
        /// `ips` or `excludeIPs`.
        field: &'static str,
        /// What is wrong with it.
        source: IpRangeError,
    },
    /// A range reaches out of the subnet.
    #[error("spec.{field}: {range} is not inside of spec.subnet {subnet}")]
    Outside {
        /// `ips` or `excludeIPs`.
        field: &'static str,
        /// The range.
        range: IpRange,
        /// The subnet.
        subnet: IpNet,
    },
    /// The gateway is not an address of the subnet.
    #[error("spec.gateway {gateway} is not an address of spec.subnet {subnet}")]
    Gateway {
        /// As written.
        gateway: String,
        /// The subnet.
        subnet: IpNet,
    },
    /// The gateway could be handed out.
    #[error("spec.gateway {0} is one of spec.ips: add it to spec.excludeIPs")]
    GatewayUsable(IpAddr),
    /// A route does not parse.
    #[error("spec.routes: {0}")]
    Route(RouteError),
}

impl Pool {
    /// Parses a pool; `routes` are (destination, next hop).
    pub fn parse<'r>(
        fields: PoolFields<'_>,
        routes: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Result<Self, PoolError> {
        Self::build(fields, routes)
            .map_err(|cause| PoolError { pool: fields.name.to_owned(), cause: Box::new(cause) })
    }

    fn build<'r>(
        fields: PoolFields<'_>,
        routes: impl IntoIterator<Item = (&'r str, &'r str)>,
    ) -> Result<Self, PoolFault> {
        let subnet = parse_subnet(fields.subnet, fields.ip_version)?;
        let ips = parse_ranges("ips", fields.ips, subnet)?;
        let usable = ips.difference(&parse_ranges("excludeIPs", fields.exclude_ips, subnet)?);
        let gateway = fields
            .gateway
            .filter(|text| !text.is_empty())
            .map(|text| parse_gateway(text, subnet, &usable))
            .transpose()?;
        let routes = routes
            .into_iter()
            .map(|(dst, gw)| Route::parse(dst, gw).map_err(PoolFault::Route))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name: fields.name.parse().map_err(PoolFault::Name)?,
            subnet,
            usable,
            gateway,
            routes,
            node_names: fields.node_names.to_vec(),
            namespace_names: fields.namespace_names.to_vec(),
            selectors: fields.selectors,
            default: fields.default,
            disabled: fields.disable,
            terminating: fields.terminating,
        })
    }

    /// The family of its addresses.
    pub fn family(&self) -> Family {
        Family::of_net(&self.subnet)
    }

    /// What is left to hand out.
    #[must_use]
    pub fn free(&self, reserved: &IpSet, in_use: &IpSet) -> IpSet {
        self.usable.difference(reserved).difference(in_use)
    }

    /// An address of the pool with the prefix length of its subnet.
    pub fn with_prefix(&self, addr: IpAddr) -> Result<IpNet, ipnet::PrefixLenError> {
        IpNet::new(addr, self.subnet.prefix_len())
    }
}

fn parse_subnet(text: &str, ip_version: Option<i64>) -> Result<IpNet, PoolFault> {
    let subnet: IpNet = text.parse().map_err(|_| PoolFault::Subnet(text.to_owned()))?;
    if subnet != subnet.trunc() {
        return Err(PoolFault::HostBits { found: subnet, network: subnet.trunc() });
    }
    let family = Family::of_net(&subnet);
    match ip_version {
        Some(found) if found != family.version() => Err(PoolFault::Version { found, subnet, family }),
        _ => Ok(subnet),
    }
}

fn parse_ranges(field: &'static str, texts: &[String], subnet: IpNet) -> Result<IpSet, PoolFault> {
    let ranges = texts
        .iter()
        .map(|text| {
            let range: IpRange = text.parse().map_err(|source| PoolFault::Range { field, source })?;
            if subnet.contains(&range.first()) && subnet.contains(&range.last()) {
                Ok(range)
            } else {
                Err(PoolFault::Outside { field, range, subnet })
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(IpSet::from_ranges(Family::of_net(&subnet), ranges))
}

fn parse_gateway(text: &str, subnet: IpNet, usable: &IpSet) -> Result<IpAddr, PoolFault> {
    let wrong = || PoolFault::Gateway { gateway: text.to_owned(), subnet };
    let gateway: IpAddr = text.parse().map_err(|_| wrong())?;
    if !subnet.contains(&gateway) {
        return Err(wrong());
    }
    if usable.contains(gateway) { Err(PoolFault::GatewayUsable(gateway)) } else { Ok(gateway) }
}

/// Two pools that both hold an address. An address must belong to one pool: its object is named by it alone.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("IPPools {first} and {second} overlap in {}", join(.ranges))]
pub struct Overlap {
    /// One pool.
    pub first: PoolName,
    /// The other.
    pub second: PoolName,
    /// What both hold.
    pub ranges: Vec<IpRange>,
}

fn join(ranges: &[IpRange]) -> String {
    ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether a pool shares an address with another one.
pub fn find_overlap<'a>(pool: &Pool, others: impl IntoIterator<Item = &'a Pool>) -> Option<Overlap> {
    let meets = |other: &Pool| {
        pool.subnet.contains(&other.subnet.network()) || other.subnet.contains(&pool.subnet.network())
    };
    others.into_iter().filter(|other| other.name != pool.name && meets(other)).find_map(|other| {
        let shared = pool.usable.intersection(&other.usable);
        (!shared.is_empty()).then(|| Overlap {
            first: pool.name.clone(),
            second: other.name.clone(),
            ranges: shared.ranges().collect(),
        })
    })
}

#[cfg(test)]
mod tests;
