//! A pod for tests: eth0, two underlay NICs and the node link, in a cluster with Services, overlay pods and a
//! node, for IPv4 and IPv6.

use std::net::IpAddr;

use super::Tables;
use crate::addr::Addr;
use crate::flow_state::SECOND;
use crate::maps::{
    AddressKey, CidrAction, CidrKind, DEFAULT_BACKUP, DEFAULT_USED, EPHEMERAL_PORTS, ExitMode, NicEntry,
    PodUsage, ROLE_CLUSTER, ROLE_NODE_LINK, ROLE_UNDERLAY,
};

/// The pod's id.
pub const POD: u16 = 40;
/// NIC id of eth0.
pub const ETH0: u16 = 1;
/// NIC id of net1.
pub const NET1: u16 = 2;
/// NIC id of net2.
pub const NET2: u16 = 3;
/// NIC id of sp0.
pub const SP0: u16 = 4;
/// All NIC ids.
pub const NICS: [u16; 4] = [ETH0, NET1, NET2, SP0];
/// Profile of the pod.
pub const PROFILE: u16 = 7;
/// Interface index of a NIC: its id and this.
pub const IFINDEX: u32 = 100;

/// How many entries a pod may have.
pub const SHARE: PodUsage = PodUsage { link_flows: 16, arrivals: 32, nat: 64 };

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Places that a pod talks to or from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Address of a NIC.
    Nic(u16),
    /// Second address of a NIC.
    Second(u16),
    /// A ClusterIP.
    Service,
    /// An overlay pod.
    OverlayPod,
    /// The pod's own node.
    Node,
    /// A host in net1's subnet, which is inside a hijacked CIDR.
    Neighbor,
    /// Anywhere else.
    Outside,
    /// Not the pod's, as a source.
    Foreign,
}

/// Its address.
pub fn at(place: Endpoint, family: Family) -> IpAddr {
    let (v4, v6) = match place {
        Endpoint::Nic(ETH0) => ("10.244.1.5", "fd00:244:1::5"),
        Endpoint::Nic(NET1) => ("172.18.55.180", "fd00:18::b4"),
        Endpoint::Nic(NET2) => ("172.19.55.180", "fd00:19::b4"),
        Endpoint::Nic(_) => ("169.254.77.2", "fd00:77::2"),
        Endpoint::Second(ETH0) => ("10.244.1.6", "fd00:244:1::6"),
        Endpoint::Second(NET1) => ("172.18.55.181", "fd00:18::b5"),
        Endpoint::Second(_) => ("172.19.55.181", "fd00:19::b5"),
        Endpoint::Service => ("10.96.0.10", "fd00:96::a"),
        Endpoint::OverlayPod => ("10.244.2.9", "fd00:244:2::9"),
        Endpoint::Node => ("172.18.0.3", "fd00:18::3"),
        Endpoint::Neighbor => ("172.18.1.1", "fd00:18::101"),
        Endpoint::Outside => ("10.7.212.101", "fd00:7::101"),
        Endpoint::Foreign => ("192.168.9.9", "fd00:9::9"),
    };
    let text = if family == Family::V4 { v4 } else { v6 };
    text.parse().unwrap_or(IpAddr::from([0; 16]))
}

/// MAC of a NIC, by its id.
pub const fn mac(id: u16) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x11, id as u8]
}

/// NIC id of veth0 in underlay mode, which is node link and cluster NIC in one.
pub const VETH0: u16 = SP0;

/// MAC of the host end of a NIC, by its id.
pub const fn peer(id: u16) -> [u8; 6] {
    [0x02, 0, 0, 0, 0x22, id as u8]
}

/// The maps of a node with this pod.
pub fn tables() -> Tables {
    let mut tables = Tables { now: 1_000_000 * SECOND, seed: 1, share: SHARE, ..Tables::default() };
    for id in NICS {
        let role = match id {
            ETH0 => ROLE_CLUSTER,
            SP0 => ROLE_NODE_LINK,
            _ => ROLE_UNDERLAY,
        };
        let underlay = role == ROLE_UNDERLAY;
        let bytes4 = |ip| if let IpAddr::V4(ip) = ip { ip.octets() } else { [0; 4] };
        let bytes6 = |ip| if let IpAddr::V6(ip) = ip { ip.octets() } else { [0; 16] };
        let entry = NicEntry {
            role,
            exit_mode: ExitMode::Translated as u8,
            pod: POD,
            exit_nic: ETH0,
            profile: PROFILE,
            node_link: SP0,
            ifindex: IFINDEX + u32::from(id),
            mtu: if underlay { 1500 } else { 1450 },
            mac: mac(id),
            peer_mac: if underlay { [0; 6] } else { peer(id) },
            addr4: bytes4(at(Endpoint::Nic(id), Family::V4)),
            addr6: bytes6(at(Endpoint::Nic(id), Family::V6)),
            // IPv4 by the cluster NIC, IPv6 by net1, so that tests see both.
            default4: if id == ETH0 { DEFAULT_USED } else { DEFAULT_BACKUP },
            default6: if id == NET1 { DEFAULT_USED } else { DEFAULT_BACKUP },
            keeps_translations: 0,
            refuses_pods: 0,
            port_low: EPHEMERAL_PORTS.0,
            port_high: EPHEMERAL_PORTS.1,
            _pad: [0; 6],
        };
        tables.nics.insert(id, entry);
        if id != SP0 {
            for family in [Family::V4, Family::V6] {
                for place in [Endpoint::Nic(id), Endpoint::Second(id)] {
                    let addr = super::frames::addr(at(place, family));
                    tables.addresses.insert(AddressKey::new(POD, addr), id);
                }
            }
        }
    }
    cidrs(&mut tables);
    tables
}

/// The maps of a node with a pod in underlay mode: NET1 and NET2 are its NICs, [`VETH0`] the way to node and cluster.
pub fn underlay_tables() -> Tables {
    let mut tables = tables();
    tables.nics.remove(&ETH0);
    tables.addresses.retain(|_, nic| *nic != ETH0);
    for nic in tables.nics.values_mut() {
        nic.exit_mode = ExitMode::AsIs as u8;
        nic.exit_nic = VETH0;
    }
    if let Some(veth0) = tables.nics.get_mut(&VETH0) {
        (veth0.addr4, veth0.addr6) = ([0; 4], [0; 16]);
    }
    tables
}

fn cidrs(tables: &mut Tables) {
    use CidrAction::{Stay, Steer};
    use CidrKind::{Connected, Hijack, Node, Pod, Service};
    let nets: [(&str, u8, CidrAction, CidrKind); 12] = [
        ("10.96.0.0", 12, Steer, Service),
        ("fd00:96::", 112, Steer, Service),
        ("10.244.0.0", 16, Steer, Pod),
        ("fd00:244::", 32, Steer, Pod),
        ("172.16.0.0", 12, Steer, Hijack),
        ("fd00:18::", 32, Steer, Hijack),
        ("172.18.0.0", 16, Stay, Connected),
        ("fd00:18::", 64, Stay, Connected),
        ("172.19.0.0", 16, Stay, Connected),
        ("fd00:19::", 64, Stay, Connected),
        ("172.18.0.3", 32, Steer, Node),
        ("fd00:18::3", 128, Steer, Node),
    ];
    for (net, len, action, kind) in nets {
        let net = match net.parse() {
            Ok(IpAddr::V4(ip)) => Addr::v4(ip.octets()),
            Ok(IpAddr::V6(ip)) => Addr::v6(ip.octets()),
            Err(_) => continue,
        };
        tables.cidr(PROFILE, net, len, action, kind);
    }
}
