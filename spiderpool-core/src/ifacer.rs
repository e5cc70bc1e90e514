//! What the plugin ifacer makes on a node before the main plugin: a VLAN on an interface, a bond of several, a VLAN on a bond.
//!
//! The network's configuration is parsed once ([`IfacerSettings::parse`]); [`plan_interfaces`] compares it with the node.

mod error;
mod options;
mod plan;
mod settings;
#[cfg(test)]
mod tests;

pub use error::{ConflictError, IfacerSettingsError};
pub use options::{BondOptionError, parse_bond_options};
pub use plan::{InterfacePlan, plan_interfaces};
pub use settings::{
    Base, BondSettings, DEFAULT_BOND, IfacerSettings, WantedBond, WantedInterfaces, WantedVlan,
};
