//! To which MACs a pod sends what leaves by its cluster NIC.

use crate::ip::Family;
use crate::mac::MacAddr;

/// One for each family: on a switch the routers of IPv4 and of IPv6 may be two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerMacs {
    /// For IPv4.
    pub v4: MacAddr,
    /// For IPv6.
    pub v6: MacAddr,
}

impl PeerMacs {
    /// One device for both.
    pub fn both(mac: MacAddr) -> Self {
        Self { v4: mac, v6: mac }
    }

    /// What is known of each family. One of which nothing is known has the other's, because most routers are of both.
    pub fn of_known(v4: Option<MacAddr>, v6: Option<MacAddr>) -> Option<Self> {
        let any = v4.or(v6)?;
        Some(Self { v4: v4.unwrap_or(any), v6: v6.unwrap_or(any) })
    }

    /// That of a family.
    pub fn of(self, family: Family) -> MacAddr {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}
