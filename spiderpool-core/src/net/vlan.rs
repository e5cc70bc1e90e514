//! VLAN devices: what is tagged, on which device is `Link::peer`.

use std::fmt;

/// What a VLAN device tags with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vlan {
    /// 0 to 4094.
    pub id: u16,
    /// `IFLA_VLAN_PROTOCOL`: a device may have the same number once by each.
    pub protocol: VlanProtocol,
}

/// The tag's Ethernet type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VlanProtocol {
    /// 802.1Q, what everybody means by a VLAN.
    Customer,
    /// 802.1ad, and whatever else there will be.
    Other,
}

impl fmt::Display for Vlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VLAN {}", self.id)?;
        match self.protocol {
            VlanProtocol::Customer => Ok(()),
            VlanProtocol::Other => f.write_str(" (not of 802.1Q)"),
        }
    }
}
