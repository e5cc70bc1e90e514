//! From the texts of a pool's spec to a [`Pool`], or to all that is wrong with it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Affinities, Pool, PoolError, PoolFault, PoolProblem, special};
use crate::ip::{Family, IpRange, IpSet};
use crate::ipam::route::IpamRoute;
use crate::label_selector::{LabelSelector, SelectorFields};
use crate::names::PoolName;

/// The members of a SpiderIPPool that decide, as texts.
#[derive(Debug, Clone, Default)]
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
    /// `spec.routes`: destination and next hop.
    pub routes: Vec<(&'a str, &'a str)>,
    /// `spec.podAffinity`.
    pub pod_affinity: Option<SelectorFields<'a>>,
    /// `spec.namespaceAffinity`.
    pub namespace_affinity: Option<SelectorFields<'a>>,
    /// `spec.namespaceName`.
    pub namespace_names: &'a [String],
    /// `spec.nodeAffinity`.
    pub node_affinity: Option<SelectorFields<'a>>,
    /// `spec.nodeName`.
    pub node_names: &'a [String],
    /// `spec.multusName`.
    pub multus_names: &'a [String],
    /// `spec.default`.
    pub default: bool,
    /// `spec.disable`.
    pub disable: bool,
}

impl Pool {
    /// Parses a pool; fails with everything that is wrong with it.
    pub fn parse(fields: &PoolFields<'_>) -> Result<Self, PoolError> {
        let mut faults = Faults::default();
        let name = faults.check("metadata.name", fields.name.parse::<PoolName>(), PoolProblem::Name);
        let subnet = parse_subnet(fields, &mut faults);
        let ips = parse_ranges("spec.ips", fields.ips, subnet, &mut faults);
        let exclude_ips = parse_ranges("spec.excludeIPs", fields.exclude_ips, subnet, &mut faults);
        let usable = subnet.map(|subnet| {
            let set = |ranges| IpSet::from_ranges(Family::of_net(&subnet), ranges);
            let unusable = special::unusable(&subnet, &ips);
            set(ips).difference(&set(exclude_ips)).difference(&unusable)
        });
        let gateway = parse_gateway(fields.gateway, subnet, usable.as_ref(), &mut faults);
        let routes = fields.routes.iter().enumerate().filter_map(|(index, (dst, gw))| {
            faults.check(&format!("spec.routes[{index}]"), IpamRoute::parse(dst, gw), PoolProblem::Route)
        });
        let routes = routes.collect();
        let affinities = Affinities {
            pod: parse_affinity("spec.podAffinity", fields.pod_affinity.as_ref(), &mut faults),
            namespace: parse_affinity(
                "spec.namespaceAffinity",
                fields.namespace_affinity.as_ref(),
                &mut faults,
            ),
            node: parse_affinity("spec.nodeAffinity", fields.node_affinity.as_ref(), &mut faults),
        };
        match (name, subnet, usable) {
            (Some(name), Some(subnet), Some(usable)) if faults.0.is_empty() => Ok(Self {
                name,
                subnet,
                usable,
                gateway,
                routes,
                node_names: fields.node_names.to_vec(),
                namespace_names: fields.namespace_names.to_vec(),
                multus_names: fields.multus_names.to_vec(),
                affinities,
                default: fields.default,
                disabled: fields.disable,
            }),
            _ => {
                let version = fields.ip_version.and_then(Family::from_version);
                Err(PoolError {
                    pool: fields.name.to_owned(),
                    default: fields.default,
                    family: subnet.map(|subnet| Family::of_net(&subnet)).or(version),
                    faults: faults.0,
                })
            }
        }
    }
}

/// What has been found so far.
#[derive(Default)]
struct Faults(Vec<PoolFault>);

impl Faults {
    fn push(&mut self, path: &str, problem: PoolProblem) {
        self.0.push(PoolFault { path: path.to_owned(), problem });
    }

    fn check<T, E>(
        &mut self,
        path: &str,
        parsed: Result<T, E>,
        problem: impl FnOnce(E) -> PoolProblem,
    ) -> Option<T> {
        parsed.map_err(|error| self.push(path, problem(error))).ok()
    }
}

/// The subnet in network form, also where its fields have faults, so that the others can be compared with it.
fn parse_subnet(fields: &PoolFields<'_>, faults: &mut Faults) -> Option<IpNet> {
    const PATH: &str = "spec.subnet";
    let parsed = fields.subnet.parse::<IpNet>();
    let found = faults.check(PATH, parsed, |_| PoolProblem::Subnet(fields.subnet.to_owned()))?;
    let subnet = found.trunc();
    if found != subnet {
        faults.push(PATH, PoolProblem::HostBits { found, network: subnet });
    }
    let family = Family::of_net(&subnet);
    if let Some(found) = fields.ip_version.filter(|found| *found != family.version()) {
        faults.push("spec.ipVersion", PoolProblem::Version { found, subnet, family });
    }
    Some(subnet)
}

fn parse_ranges(path: &str, texts: &[String], subnet: Option<IpNet>, faults: &mut Faults) -> Vec<IpRange> {
    let parsed = texts.iter().enumerate().filter_map(|(index, text)| {
        let path = format!("{path}[{index}]");
        let range: IpRange = faults.check(&path, text.parse(), PoolProblem::Range)?;
        let is_inside = |subnet: &IpNet| subnet.contains(&range.first()) && subnet.contains(&range.last());
        if let Some(subnet) = subnet.filter(|subnet| !is_inside(subnet)) {
            faults.push(&path, PoolProblem::Outside { range, subnet });
        }
        Some(range)
    });
    parsed.collect()
}

/// An empty text is no gateway.
fn parse_gateway(
    text: Option<&str>,
    subnet: Option<IpNet>,
    usable: Option<&IpSet>,
    faults: &mut Faults,
) -> Option<IpAddr> {
    const PATH: &str = "spec.gateway";
    let text = text.filter(|text| !text.is_empty())?;
    let gateway = faults.check(PATH, text.parse::<IpAddr>(), |_| PoolProblem::Gateway(text.to_owned()))?;
    if let Some(subnet) = subnet.filter(|subnet| !subnet.contains(&gateway)) {
        faults.push(PATH, PoolProblem::GatewayOutside { gateway, subnet });
    } else if usable.is_some_and(|usable| usable.contains(gateway)) {
        faults.push(PATH, PoolProblem::GatewayUsable(gateway));
    }
    Some(gateway)
}

fn parse_affinity(
    path: &str,
    fields: Option<&SelectorFields<'_>>,
    faults: &mut Faults,
) -> Option<LabelSelector> {
    let parsed = LabelSelector::parse(fields?);
    let found = match parsed {
        Ok(selector) => return selector,
        Err(found) => found,
    };
    for fault in found {
        faults.push(&format!("{path}.{}", fault.path), PoolProblem::Affinity(fault.problem));
    }
    None
}
