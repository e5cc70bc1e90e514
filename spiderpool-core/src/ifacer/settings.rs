//! The plugin's settings as a network's configuration has them, and what they ask for.

use serde::Deserialize;

use super::error::IfacerSettingsError;
use super::options::parse_bond_options;
use crate::names::IfName;
use crate::net::{BondMode, BondOption};

/// The name of a bond that has none.
pub const DEFAULT_BOND: &str = "sp_bond0";
/// 0 for none; 4095 is reserved (IEEE 802.1Q).
const MAX_VLAN_ID: i64 = 4094;

/// As written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IfacerSettings {
    /// Interfaces of the node; several are joined into a bond.
    pub interfaces: Vec<String>,
    /// A VLAN on top; 0 for none.
    #[serde(rename = "vlanID")]
    pub vlan_id: i64,
    /// The bond of several interfaces.
    pub bond: Option<BondSettings>,
}

/// The bond as written.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BondSettings {
    /// Its name; empty for [`DEFAULT_BOND`].
    pub name: String,
    /// Its mode, as the kernel numbers it.
    pub mode: i64,
    /// Its options, KEY=VALUE;KEY=VALUE.
    pub options: String,
}

/// What the node is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedInterfaces {
    /// What the VLAN is on, or the main plugin's NIC.
    pub base: Base,
    /// The VLAN on it.
    pub vlan: Option<WantedVlan>,
}

/// What a VLAN is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// An interface that has to be there.
    Interface(IfName),
    /// A bond.
    Bond(WantedBond),
}

/// A bond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedBond {
    /// Its name.
    pub name: IfName,
    /// Its mode.
    pub mode: BondMode,
    /// In the order in which they are set.
    pub options: Vec<BondOption>,
    /// Its members, the first of which gives it its MAC; at least two.
    pub members: Vec<IfName>,
}

/// A VLAN (802.1Q).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedVlan {
    /// `BASE.ID`.
    pub name: IfName,
    /// 1 to 4094.
    pub id: u16,
}

impl IfacerSettings {
    /// What they ask for; `None` where there is nothing to make: one interface alone, or several without a bond.
    pub fn parse(&self) -> Result<Option<WantedInterfaces>, IfacerSettingsError> {
        let members = self.members()?;
        let id = u16::try_from(self.vlan_id).ok().filter(|_| self.vlan_id <= MAX_VLAN_ID);
        let id = id.ok_or(IfacerSettingsError::VlanId(self.vlan_id))?;
        let (base, base_name) = match (members.as_slice(), &self.bond) {
            ([_], _) if id == 0 => return Ok(None),
            ([interface], _) => (Base::Interface(interface.clone()), interface.clone()),
            (_, None) if id == 0 => return Ok(None),
            (_, None) => return Err(IfacerSettingsError::NoBond),
            (_, Some(bond)) => {
                let bond = bond.parse(members)?;
                let name = bond.name.clone();
                (Base::Bond(bond), name)
            }
        };
        let vlan = if id == 0 { None } else { Some(WantedVlan { name: vlan_name(&base_name, id)?, id }) };
        Ok(Some(WantedInterfaces { base, vlan }))
    }

    fn members(&self) -> Result<Vec<IfName>, IfacerSettingsError> {
        if self.interfaces.is_empty() {
            return Err(IfacerSettingsError::NoInterfaces);
        }
        let mut members: Vec<IfName> = Vec::new();
        for text in &self.interfaces {
            let name = text.parse()?;
            if members.contains(&name) {
                return Err(IfacerSettingsError::Repeated(name));
            }
            members.push(name);
        }
        Ok(members)
    }
}

impl BondSettings {
    fn parse(&self, members: Vec<IfName>) -> Result<WantedBond, IfacerSettingsError> {
        let name = if self.name.is_empty() { DEFAULT_BOND } else { &self.name };
        let name: IfName = name.parse()?;
        if members.contains(&name) {
            return Err(IfacerSettingsError::BondOfItself(name));
        }
        let mode = BondMode::of_number(self.mode).ok_or(IfacerSettingsError::BondMode(self.mode))?;
        let options = parse_bond_options(&self.options, mode, &members)
            .map_err(|source| IfacerSettingsError::BondOptions { bond: name.clone(), source })?;
        Ok(WantedBond { name, mode, options, members })
    }
}

fn vlan_name(base: &IfName, id: u16) -> Result<IfName, IfacerSettingsError> {
    let name = format!("{base}.{id}");
    name.parse().map_err(|_| IfacerSettingsError::VlanName { base: base.clone(), id, name })
}

impl WantedInterfaces {
    /// The interface that the main plugin works on.
    pub fn name(&self) -> &IfName {
        self.vlan.as_ref().map_or_else(|| self.base.name(), |vlan| &vlan.name)
    }
}

impl Base {
    /// Its name.
    pub fn name(&self) -> &IfName {
        match self {
            Self::Interface(name) => name,
            Self::Bond(bond) => &bond.name,
        }
    }
}
