//! One change to the node's own interfaces: what the plugin ifacer does.

use std::fmt;

use crate::names::IfName;
use crate::net::{BondMode, BondOption};

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InterfaceStep {
    /// Creates a VLAN (802.1Q), down.
    AddVlan {
        /// Its name.
        dev: IfName,
        /// The interface that it is on.
        parent: IfName,
        /// 1 to 4094.
        id: u16,
    },
    /// Creates a bond, down.
    AddBond {
        /// Its name.
        dev: IfName,
        /// Its mode.
        mode: BondMode,
        /// That of its members, which it gives to each of them: otherwise all would get the default's.
        mtu: u32,
    },
    /// Sets an option of a bond that was created before.
    SetOption {
        /// The bond.
        bond: IfName,
        /// The option.
        option: BondOption,
    },
    /// Makes an interface a member of a bond, which may have to set it down for it. The kernel then sets it up.
    AddMember {
        /// The bond.
        bond: IfName,
        /// The interface.
        dev: IfName,
        /// Whether it is up now.
        was_up: bool,
    },
    /// Takes a member out of its bond.
    RemoveMember {
        /// The interface.
        dev: IfName,
        /// Whether it is to be up then.
        up: bool,
    },
    /// Sets an interface up. Others may use it from then on: it is not set down again.
    SetUp {
        /// The interface.
        dev: IfName,
    },
    /// Deletes a VLAN or a bond that was created before.
    Delete {
        /// Its name.
        dev: IfName,
    },
}

impl InterfaceStep {
    /// The step that rolls this one back. `None`: the one that creates the interface takes it along.
    pub(super) fn inverse(&self) -> Option<Self> {
        match self {
            Self::AddVlan { dev, .. } | Self::AddBond { dev, .. } => Some(Self::Delete { dev: dev.clone() }),
            Self::AddMember { dev, was_up, .. } => Some(Self::RemoveMember { dev: dev.clone(), up: *was_up }),
            Self::SetOption { .. } | Self::RemoveMember { .. } | Self::SetUp { .. } | Self::Delete { .. } => {
                None
            }
        }
    }
}

impl fmt::Display for InterfaceStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddVlan { dev, parent, id } => {
                write!(f, "link add link {parent} name {dev} type vlan id {id}")
            }
            Self::AddBond { dev, mode, mtu } => {
                write!(f, "link add {dev} mtu {mtu} type bond mode {}", mode.number())
            }
            Self::SetOption { bond, option } => write!(f, "link set {bond} type bond {option}"),
            Self::AddMember { bond, dev, .. } => write!(f, "link set {dev} master {bond}"),
            Self::RemoveMember { dev, .. } => write!(f, "link set {dev} nomaster"),
            Self::SetUp { dev } => write!(f, "link set {dev} up"),
            Self::Delete { dev } => write!(f, "link del {dev}"),
        }
    }
}
