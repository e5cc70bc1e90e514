//! Routes as pools and annotations list them.

use std::fmt;
use std::net::{AddrParseError, IpAddr};

use ipnet::{AddrParseError as NetParseError, IpNet};
use thiserror::Error;

use crate::error_list::quoted;
use crate::ip::Family;

/// A route of a pool or of the pod's annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpamRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop.
    pub gw: IpAddr,
}

/// Why two texts are not a route.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RouteError {
    /// The destination.
    #[error("destination {0:?} is not a network in CIDR form: {1}")]
    Destination(String, NetParseError),
    /// The next hop.
    #[error("gateway {0:?} is not an address: {1}")]
    Gateway(String, AddrParseError),
    /// One IPv4 and one IPv6 member.
    #[error("destination {0} and gateway {1} are not of one family")]
    Mixed(IpNet, IpAddr),
}

impl IpamRoute {
    /// Parses both members.
    pub fn parse(dst: &str, gw: &str) -> Result<Self, RouteError> {
        let dst: IpNet = dst.parse().map_err(|e| RouteError::Destination(quoted(dst), e))?;
        let gw: IpAddr = gw.parse().map_err(|e| RouteError::Gateway(quoted(gw), e))?;
        if Family::of_net(&dst) == Family::of(gw) {
            Ok(Self { dst: dst.trunc(), gw })
        } else {
            Err(RouteError::Mixed(dst, gw))
        }
    }
}

impl fmt::Display for IpamRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} via {}", self.dst, self.gw)
    }
}
