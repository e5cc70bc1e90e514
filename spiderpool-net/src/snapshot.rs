//! Reads a namespace as plans need it, with devices by their names.

use std::collections::BTreeMap;

use spiderpool_core::coordinator::NamespaceState;
use spiderpool_core::ip::Family;
use spiderpool_core::names::IfName;
use spiderpool_core::net::{Address, Link, Medium, Neighbor, Route, Rule};

use crate::netlink::{Netlink, NetlinkError};

/// What to read beside the links. Each costs a dump or two.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Contents {
    /// Addresses.
    pub addresses: bool,
    /// Unicast routes of the main table.
    pub routes: bool,
    /// Permanent neighbors on Ethernet links.
    pub neighbors: bool,
    /// Rules, and routes of further tables.
    pub policy: Policy,
}

/// How much of policy routing to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nothing.
    #[default]
    Nothing,
    /// Rules.
    Rules,
    /// Rules, and routes of all tables but the main one and the kernel's.
    RulesAndTables,
}

impl Contents {
    /// Everything but policy routing.
    pub const PLAIN: Self = Self { addresses: true, routes: true, neighbors: true, policy: Policy::Nothing };
    /// Everything but policy routing's tables.
    pub const WITH_RULES: Self = Self { policy: Policy::Rules, ..Self::PLAIN };
    /// Everything.
    pub const ALL: Self = Self { policy: Policy::RulesAndTables, ..Self::PLAIN };
}

impl Netlink {
    /// Reads all links of the namespace, and of them what is asked for.
    pub async fn snapshot(&mut self, contents: Contents) -> Result<NamespaceState, NetlinkError> {
        let links = self.links().await?;
        let mut found = Found::default();
        if contents.addresses {
            found.addresses = self.addresses(None).await?;
        }
        if contents.routes {
            found.routes = self.routes().await?;
        }
        if contents.neighbors {
            for link in links.iter().filter(|link| link.medium == Medium::Ethernet) {
                found.neighbors.extend(self.permanent_neighbors(link.index).await?);
            }
        }
        self.read_policy(contents.policy, &mut found).await?;
        Ok(found.named(links))
    }

    /// Reads these links alone, however many the namespace has; those that are not there are left out.
    pub async fn snapshot_of(
        &mut self,
        names: &[&IfName],
        contents: Contents,
    ) -> Result<NamespaceState, NetlinkError> {
        let (mut links, mut found) = (Vec::new(), Found::default());
        for name in names {
            let Some(link) = self.link_by_name(name).await? else { continue };
            if contents.addresses {
                found.addresses.extend(self.addresses(Some(link.index)).await?);
            }
            if contents.routes {
                for family in Family::ALL {
                    found.routes.extend(self.routes_of(family, Some(link.index)).await?);
                }
            }
            if contents.neighbors && link.medium == Medium::Ethernet {
                found.neighbors.extend(self.permanent_neighbors(link.index).await?);
            }
            links.push(link);
        }
        self.read_policy(contents.policy, &mut found).await?;
        Ok(found.named(links))
    }

    async fn read_policy(&mut self, policy: Policy, found: &mut Found) -> Result<(), NetlinkError> {
        if policy != Policy::Nothing {
            found.rules = self.rules().await?;
        }
        if policy == Policy::RulesAndTables {
            found.table_routes = self.further_routes(None).await?;
        }
        Ok(())
    }
}

/// As the kernel lists it, by index.
#[derive(Default)]
struct Found {
    addresses: Vec<Address>,
    routes: Vec<Route<u32>>,
    neighbors: Vec<Neighbor<u32>>,
    rules: Vec<Rule>,
    table_routes: Vec<Route<u32>>,
}

impl Found {
    /// What is on a link that came after the links were listed is left out.
    fn named(self, links: Vec<Link>) -> NamespaceState {
        let names: BTreeMap<u32, &IfName> = links.iter().map(|link| (link.index, &link.name)).collect();
        let name = |index: &u32| names.get(index).map(|name| (*name).clone());
        let address = |a: &Address| Some(Address { dev: name(&a.dev)?, net: a.net, scope: a.scope });
        let neighbor =
            |n: &Neighbor<u32>| Some(Neighbor { dev: name(&n.dev)?, address: n.address, mac: n.mac });
        NamespaceState {
            addresses: self.addresses.iter().filter_map(address).collect(),
            routes: self.routes.iter().filter_map(|route| route.with_dev(name)).collect(),
            neighbors: self.neighbors.iter().filter_map(neighbor).collect(),
            table_routes: self.table_routes.iter().filter_map(|route| route.with_dev(name)).collect(),
            rules: self.rules,
            links,
        }
    }
}
