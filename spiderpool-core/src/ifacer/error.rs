//! What is wrong with a configuration, and where a node has something else than it asks for.

use std::net::IpAddr;

use thiserror::Error;

use super::options::BondOptionError;
use crate::names::{IfName, NameError};
use crate::net::{BondMode, Vlan};

/// What is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IfacerSettingsError {
    /// No interfaces.
    #[error("interfaces is missing: name at least one network interface of the node")]
    NoInterfaces,
    /// Not a name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The same twice.
    #[error("interfaces names {0} more than once")]
    Repeated(IfName),
    /// Not a number of a VLAN.
    #[error("vlanID {0} is no VLAN: it must be from 0 to 4094")]
    VlanId(i64),
    /// A VLAN on several interfaces that nothing joins.
    #[error("bond is missing: a VLAN on several interfaces needs it")]
    NoBond,
    /// Not a mode.
    #[error("bond.mode {0} is no mode of a bond: it must be from 0 to 6")]
    BondMode(i64),
    /// The bond is its own member.
    #[error("bond.name {0} is one of the interfaces that the bond is made of: give it another name")]
    BondOfItself(IfName),
    /// Options.
    #[error("bond.options of {bond}: {source}")]
    BondOptions {
        /// Of which bond.
        bond: IfName,
        /// What is wrong.
        source: BondOptionError,
    },
    /// The kernel takes 15 characters.
    #[error(
        "the VLAN interface {name} would have a name of more than 15 characters: {base} must be shorter for VLAN {id}"
    )]
    VlanName {
        /// What it is on.
        base: IfName,
        /// The VLAN.
        id: u16,
        /// The name.
        name: String,
    },
}

/// The node has something else than what is asked for. It is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConflictError {
    /// An interface is not there.
    #[error("interface {0} is not on this node: name one that every node of the network has")]
    NoInterface(IfName),
    /// The bond's name is taken.
    #[error("{name} is there already and is {}, not a bond: give the bond another name", kind_of(kind))]
    NotBond {
        /// The name.
        name: IfName,
        /// Its kind.
        kind: String,
    },
    /// The bond has another mode.
    #[error(
        "bond {name} is there already in mode {found}, and the network asks for mode {wanted}: change the network, or \
         delete the bond (ip link del {name}) when no pod uses it, so that it is made again"
    )]
    BondMode {
        /// The bond.
        name: IfName,
        /// Its mode.
        found: BondMode,
        /// The network's.
        wanted: BondMode,
    },
    /// The bond has other members.
    #[error(
        "bond {name} is there already with the members [{}], and the network asks for [{}]: change the network, add or \
         remove members (ip link set NIC master {name}, ip link set NIC nomaster), or delete the bond (ip link del \
         {name}) when no pod uses it, so that it is made again",
        names(found),
        names(wanted)
    )]
    BondMembers {
        /// The bond.
        name: IfName,
        /// Its members.
        found: Vec<IfName>,
        /// The network's.
        wanted: Vec<IfName>,
    },
    /// An interface belongs to something else.
    #[error(
        "interface {member} is to be a member of bond {bond}, but it is a port of {master}: remove it there (ip link \
         set {member} nomaster), or name another interface"
    )]
    MemberTaken {
        /// The interface.
        member: IfName,
        /// The bond.
        bond: IfName,
        /// What it belongs to.
        master: String,
    },
    /// The node would lose its network.
    #[error(
        "interface {member} is to be a member of bond {bond}, but the node's default route leaves by it, and would be \
         lost: make the bond by the node's own network configuration, or name another interface"
    )]
    DefaultRoute {
        /// The interface.
        member: IfName,
        /// The bond.
        bond: IfName,
    },
    /// No NIC.
    #[error(
        "interface {member} is to be a member of bond {bond}, but is no Ethernet interface: name another interface"
    )]
    NotEthernet {
        /// The interface.
        member: IfName,
        /// The bond.
        bond: IfName,
    },
    /// The node uses the interface itself.
    #[error(
        "interface {member} is to be a member of bond {bond}, but the node has the address {address} on {dev}, and would not \
         be reached there any more: make the bond by the node's own network configuration, or name another interface"
    )]
    NodeAddress {
        /// The interface.
        member: IfName,
        /// The bond.
        bond: IfName,
        /// Which has the address: the interface, or a VLAN of it.
        dev: IfName,
        /// The address.
        address: IpAddr,
    },
    /// The VLAN's name is taken.
    #[error(
        "{name} is there already and is {}, not a VLAN on {parent}: rename or delete it (ip link del {name})",
        kind_of(kind)
    )]
    NotVlan {
        /// The name.
        name: IfName,
        /// Its kind.
        kind: String,
        /// What the VLAN is to be on.
        parent: IfName,
    },
    /// It is another VLAN, or on another interface.
    #[error(
        "{name} is there already and is {found} on {found_parent}, and the network asks for VLAN {wanted} on \
         {parent}: rename or delete it (ip link del {name}) when no pod uses it"
    )]
    OtherVlan {
        /// The name.
        name: IfName,
        /// What it is.
        found: Vlan,
        /// What it is on.
        found_parent: String,
        /// The VLAN that is asked for.
        wanted: u16,
        /// What the VLAN is to be on.
        parent: IfName,
    },
    /// Another interface has the VLAN: the kernel makes each once per interface.
    #[error(
        "VLAN {id} on {parent} is there already and is called {other}: name {other} as the network's master with \
         vlanID 0, or delete it (ip link del {other})"
    )]
    VlanTaken {
        /// The VLAN.
        id: u16,
        /// What it is on.
        parent: IfName,
        /// Its interface.
        other: IfName,
    },
    /// An interface that is not in this namespace has the VLAN.
    #[error(
        "VLAN {id} on {parent} is there already, and its interface is in another network namespace, as a pod of a \
         network with cniType vlan has it: use another VLAN, or the same cniType for both networks"
    )]
    VlanElsewhere {
        /// The VLAN.
        id: u16,
        /// What it is on.
        parent: IfName,
    },
}

/// `IFLA_INFO_KIND`, in words.
fn kind_of(kind: &str) -> String {
    if kind.is_empty() { "a physical interface".to_owned() } else { format!("of the kind {kind}") }
}

fn names(list: &[IfName]) -> String {
    list.iter().map(IfName::as_str).collect::<Vec<_>>().join(", ")
}
