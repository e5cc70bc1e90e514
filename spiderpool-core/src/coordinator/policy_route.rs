//! `policyRoutes`: routes that win over the CIDRs, as written and parsed.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::SettingsError;
use super::values::{null_as_empty, parse_net};
use crate::ip::Family;

/// A route that wins over the CIDRs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schemars", derive(schemars::JsonSchema))]
pub struct PolicyRouteText {
    /// Destination in CIDR form.
    #[serde(default, deserialize_with = "null_as_empty")]
    #[cfg_attr(feature = "schemars", schemars(!default, required))]
    pub dst: String,
    /// Next hop.
    #[serde(default, deserialize_with = "null_as_empty")]
    #[cfg_attr(feature = "schemars", schemars(!default, required))]
    pub gw: String,
}

/// A route of `policyRoutes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyRoute {
    /// Destination.
    pub dst: IpNet,
    /// Next hop, of the same family.
    pub gw: IpAddr,
}

impl PolicyRouteText {
    pub(super) fn parse(&self) -> Result<PolicyRoute, SettingsError> {
        let error =
            |reason| SettingsError::PolicyRoute { dst: self.dst.clone(), gw: self.gw.clone(), reason };
        let dst = parse_net(&self.dst).ok_or_else(|| error("dst is neither an address nor a CIDR"))?;
        let gw = self.gw.trim().parse().map_err(|_| error("gw is not an address"))?;
        if Family::of_net(&dst) == Family::of(gw) {
            Ok(PolicyRoute { dst, gw })
        } else {
            Err(error("dst and gw are of different families"))
        }
    }
}
