//! CHECK: plans again; what the plan would still do is missing.

use spiderpool_core::ifacer::{Base, WantedInterfaces, plan_interfaces};
use spiderpool_net::netlink::Netlink;
use spiderpool_net::netns::NetNs;
use spiderpool_net::snapshot::Contents;

use super::NetConf;
use crate::env::Request;
use crate::error::{CheckError, PluginError};

pub(super) async fn check(request: &Request, conf: &NetConf) -> Result<(), PluginError> {
    NetNs::open(&request.netns)?;
    let Some(wanted) = &conf.wanted else { return Ok(()) };
    let node = Netlink::open()?.snapshot(contents(wanted)).await?;
    let plan = plan_interfaces(wanted, &node).map_err(|conflict| PluginError::Check(conflict.into()))?;
    let missing: Vec<_> = plan.steps.iter().map(ToString::to_string).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(PluginError::Check(CheckError::Steps { nic: wanted.name().clone(), missing }))
}

/// What a plan is made from: for a bond also what the node itself uses.
pub(super) fn contents(wanted: &WantedInterfaces) -> Contents {
    let is_bond = matches!(wanted.base, Base::Bond(_));
    Contents { addresses: is_bond, routes: is_bond, ..Contents::default() }
}
