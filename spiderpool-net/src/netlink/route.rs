//! Unicast routes, of the main table and of further ones.

use std::net::IpAddr;

use ipnet::IpNet;
use rtnetlink::packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop, RouteNextHopFlags,
    RouteScope, RouteType, RouteVia,
};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use spiderpool_core::ip::Family;
use spiderpool_core::net::{MAIN_TABLE, Route};

use super::{Netlink, NetlinkError};

/// The table of the kernel's own local and broadcast routes.
const LOCAL_TABLE: u32 = 255;

impl Netlink {
    /// The unicast routes of the main table, IPv4 then IPv6; each next hop of a multipath route is one.
    pub async fn routes(&mut self) -> Result<Vec<Route<u32>>, NetlinkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            found.extend(self.routes_of(family, None).await?);
        }
        Ok(found)
    }

    /// The unicast routes of one family, only those by link `index` if one is given.
    pub async fn routes_of(
        &mut self,
        family: Family,
        index: Option<u32>,
    ) -> Result<Vec<Route<u32>>, NetlinkError> {
        let mut message = of_table(family, MAIN_TABLE);
        message.attributes.extend(index.map(RouteAttribute::Oif));
        let matches = |r: &Route<u32>| r.table == MAIN_TABLE && index.is_none_or(|i| i == r.dev);
        self.dump_routes(family, message, matches).await
    }

    /// The unicast routes of one table.
    pub async fn routes_in(&mut self, table: u32) -> Result<Vec<Route<u32>>, NetlinkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            found.extend(self.dump_routes(family, of_table(family, table), |r| r.table == table).await?);
        }
        Ok(found)
    }

    /// The unicast routes of all tables but the main one and the kernel's own, only those of `protocol` if one is given.
    pub async fn further_routes(&mut self, protocol: Option<u8>) -> Result<Vec<Route<u32>>, NetlinkError> {
        let mut found = Vec::new();
        for family in Family::ALL {
            let mut message = RouteMessage::default();
            message.header.address_family = address_family(family);
            message.header.protocol = protocol.unwrap_or_default().into();
            let matches = |r: &Route<u32>| {
                ![MAIN_TABLE, LOCAL_TABLE].contains(&r.table) && protocol.is_none_or(|p| p == r.protocol)
            };
            found.extend(self.dump_routes(family, message, matches).await?);
        }
        Ok(found)
    }

    async fn dump_routes(
        &mut self,
        family: Family,
        message: RouteMessage,
        matches: impl Fn(&Route<u32>) -> bool,
    ) -> Result<Vec<Route<u32>>, NetlinkError> {
        let object = format!("of {family}");
        let message = RouteNetlinkMessage::GetRoute(message);
        match self.dump("list routes", object, message, |m| Some(read(m))).await {
            // The kernel answers so to a filtered dump of a family whose table it has not made yet.
            Err(error) if error.is_gone() => Ok(Vec::new()),
            // A kernel without IPv6 answers with what it has.
            result => {
                Ok(result?.into_iter().flatten().filter(|r| r.family() == family && matches(r)).collect())
            }
        }
    }

    /// Adds a route. One with the same destination and metric is an error (EEXIST).
    pub async fn add_route(&mut self, route: &Route<u32>) -> Result<(), NetlinkError> {
        let request = self.builder().route().add(message(route));
        self.execute("add route", route, request.execute()).await
    }

    /// Adds a route, unless exactly this one is there: another process may have added it meanwhile.
    pub async fn ensure_route(&mut self, route: &Route<u32>) -> Result<(), NetlinkError> {
        let Err(error) = self.add_route(route).await else { return Ok(()) };
        // As the kernel lists it.
        let metric = if route.family() == Family::V6 && route.metric == 0 { 1024 } else { route.metric };
        let listed = Route { metric, ..route.clone() };
        if error.is_exists() && self.routes_in(route.table).await?.contains(&listed) {
            return Ok(());
        }
        Err(error)
    }

    /// The source address with which this host reaches `address`; `None` if it has no way to it.
    pub async fn source_for(&mut self, address: IpAddr) -> Result<Option<IpAddr>, NetlinkError> {
        let family = Family::of(address);
        let mut message = RouteMessage::default();
        message.header.address_family = address_family(family);
        message.header.destination_prefix_length = IpNet::from(address).prefix_len();
        message.attributes.push(RouteAttribute::Destination(RouteAddress::from(address)));
        let source = |message| {
            let RouteNetlinkMessage::NewRoute(message) = message else { return None };
            message.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::PrefSource(source) => addr(source),
                _ => None,
            })
        };
        match self.get("look up route to", address, RouteNetlinkMessage::GetRoute(message), source).await {
            Err(error) if error.is_unreachable() => Ok(None),
            result => result,
        }
    }

    /// Adds a route after those with the same destination and metric, if there are any.
    pub async fn append_route(&mut self, route: &Route<u32>) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(message(route));
        self.execute_raw("append route", route, NLM_F_CREATE | NLM_F_APPEND, message).await
    }

    /// Adds a route in place of one with the same destination and metric, if there is one.
    pub async fn replace_route(&mut self, route: &Route<u32>) -> Result<(), NetlinkError> {
        let request = self.builder().route().add(message(route)).replace();
        self.execute("replace route", route, request.execute()).await
    }

    /// Deletes a route, exactly this one; a route that is not there is not an error.
    pub async fn delete_route(&mut self, route: &Route<u32>) -> Result<(), NetlinkError> {
        let request = self.builder().route().del(message(route));
        match self.execute("delete route", route, request.execute()).await {
            Err(error) if error.is_gone() => Ok(()),
            result => result,
        }
    }
}

/// What asks for the routes of a table.
fn of_table(family: Family, table: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(family);
    set_table(&mut message, table);
    message
}

fn set_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(table) => message.header.table = table,
        Err(_) => message.attributes.push(RouteAttribute::Table(table)),
    }
}

pub(super) fn address_family(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

fn message(route: &Route<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = address_family(route.family());
    message.header.destination_prefix_length = route.dst.prefix_len();
    set_table(&mut message, route.table);
    message.header.protocol = route.protocol.into();
    message.header.kind = RouteType::Unicast;
    // IPv6 has no scopes; an IPv4 route without a next hop ends on the link.
    let on_link = route.gateway.is_none() && route.family() == Family::V4;
    message.header.scope = if on_link { RouteScope::Link } else { RouteScope::Universe };
    if route.onlink {
        message.header.flags = RouteFlags::Onlink;
    }
    let (header, attributes) = (&mut message.header, &mut message.attributes);
    if !route.is_default() {
        attributes.push(RouteAttribute::Destination(RouteAddress::from(route.dst.network())));
    }
    if let Some(from) = route.from {
        header.source_prefix_length = IpNet::from(from).prefix_len();
        attributes.push(RouteAttribute::Source(RouteAddress::from(from)));
    }
    attributes.extend(route.gateway.map(|a| gateway(route.family(), a)));
    attributes.extend(route.source.map(|a| RouteAttribute::PrefSource(RouteAddress::from(a))));
    attributes.push(RouteAttribute::Oif(route.dev));
    if route.metric != 0 {
        attributes.push(RouteAttribute::Priority(route.metric));
    }
    attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
    message
}

/// An IPv4 route by an IPv6 next hop has it in an attribute of its own.
fn gateway(family: Family, gateway: IpAddr) -> RouteAttribute {
    if Family::of(gateway) == family {
        RouteAttribute::Gateway(RouteAddress::from(gateway))
    } else {
        RouteAttribute::Via(RouteVia::from(gateway))
    }
}

fn read(message: RouteNetlinkMessage) -> Vec<Route<u32>> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return Vec::new() };
    let header = &message.header;
    // Redirects and path MTUs that the kernel caches are dumped as clones.
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return Vec::new();
    }
    let Some(family) = (match header.address_family {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }) else {
        return Vec::new();
    };
    let mut route = Route {
        dst: family.default_route(),
        dev: 0,
        gateway: None,
        source: None,
        metric: 0,
        protocol: u8::from(header.protocol),
        table: u32::from(header.table),
        onlink: header.flags.contains(RouteFlags::Onlink),
        mtu: None,
        from: None,
        is_hop: false,
    };
    let mut hops = Vec::new();
    for attribute in message.attributes {
        match attribute {
            RouteAttribute::Destination(dst) => {
                let Some(dst) = addr(&dst).and_then(|a| IpNet::new(a, header.destination_prefix_length).ok())
                else {
                    return Vec::new();
                };
                route.dst = dst;
            }
            RouteAttribute::Oif(index) => route.dev = index,
            RouteAttribute::Gateway(_) | RouteAttribute::Via(_) => route.gateway = next_hop(&attribute),
            RouteAttribute::PrefSource(source) => route.source = addr(&source),
            RouteAttribute::Source(from) => route.from = addr(&from),
            RouteAttribute::Priority(metric) => route.metric = metric,
            RouteAttribute::Table(id) => route.table = id,
            RouteAttribute::MultiPath(found) => hops = found,
            RouteAttribute::Metrics(metrics) => {
                route.mtu =
                    metrics.iter().find_map(|m| if let RouteMetric::Mtu(v) = m { Some(*v) } else { None });
            }
            _ => {}
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    hops.iter().map(|hop| of_hop(&route, hop)).collect()
}

fn of_hop(route: &Route<u32>, hop: &RouteNextHop) -> Route<u32> {
    let gateway = hop.attributes.iter().find_map(next_hop);
    let onlink = hop.flags.contains(RouteNextHopFlags::Onlink);
    let is_hop = route.family() == Family::V4;
    Route { dev: hop.interface_index, gateway, onlink, is_hop, ..route.clone() }
}

fn next_hop(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(gateway) => addr(gateway),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

fn addr(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}
