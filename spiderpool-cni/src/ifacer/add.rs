//! ADD: reads the node, plans, applies, and rolls back if a step fails.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use spiderpool_core::coordinator::{InterfaceStep, Namespace, Step};
use spiderpool_core::ifacer::{ConflictError, WantedInterfaces, plan_interfaces};
use spiderpool_net::executor::{ApplyError, Executor, MissingDevice};
use spiderpool_net::netns::NetNs;
use tracing::{debug, info, warn};

use super::NetConf;
use super::check::contents;
use crate::env::Request;
use crate::error::PluginError;
use crate::spec::{Version, convert_result};

/// How long to wait for the ADDs of other pods. Each takes well below a second, also with members whose drivers are slow.
const LOCK_LIMIT: Duration = Duration::from_secs(10);
/// How often to look again when somebody else makes the same interface at the same time.
const ATTEMPTS: usize = 5;
/// Between two of them.
const INTERVAL: Duration = Duration::from_millis(20);

pub(super) async fn add(request: &Request, conf: NetConf, version: Version) -> Result<Value, PluginError> {
    // Before anything is made for a sandbox that is gone.
    let netns = NetNs::open(&request.netns)?;
    if conf.wanted.is_none() {
        debug!("one interface without a VLAN, or several without a bond: there is nothing to make");
    }
    if let Some(wanted) = &conf.wanted {
        // What this ADD has not finished, no other one sees; and what it rolls back, no other one has begun to use.
        let lock = NetNs::current()?.lock(LOCK_LIMIT)?;
        if lock.is_none() {
            warn!("others hold the lock of the node's network namespace, going on without it");
        }
        let mut executor = Executor::new(&netns, MissingDevice::Fail)?;
        if let Err(error) = make(wanted, &mut executor).await {
            warn!(%error, "ADD failed, rolling back");
            for error in executor.roll_back().await {
                warn!(step = %error.step, error = %error.source, "step cannot be rolled back");
            }
            return Err(error);
        }
    }
    // It is the first plugin as a rule: the main plugin begins with a result of its own.
    let result = if conf.base.prev_result.is_object() { conf.base.prev_result } else { json!({ "dns": {} }) };
    Ok(convert_result(result, version))
}

/// What is there already, as somebody else may just have made it, is read again and judged.
async fn make(wanted: &WantedInterfaces, executor: &mut Executor<'_>) -> Result<(), PluginError> {
    let mut attempt = 1;
    loop {
        let node = executor.netlink(Namespace::Node).snapshot(contents(wanted)).await?;
        let plan = plan_interfaces(wanted, &node)?;
        if !plan.absent.is_empty() {
            warn!(absent = ?plan.absent, "members of the bond are not on this node, it works without them");
        }
        match executor.apply(&plan.steps).await {
            Ok(()) => {
                if let Some(step) = plan.preference
                    && let Err(error) = executor.apply(&[step]).await
                {
                    warn!(%error, "the bond chooses its active member itself");
                }
                info!(interface = %wanted.name(), steps = plan.steps.len(), "interface is there");
                return Ok(());
            }
            Err(error) if error.source.is_exists() && attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(of_step(error)),
        }
        thread::sleep(INTERVAL);
    }
}

/// The kernel makes a VLAN once per interface, wherever it is moved then.
fn of_step(error: ApplyError) -> PluginError {
    match &*error.step {
        Step::Interface(InterfaceStep::AddVlan { parent, id, .. }) if error.source.is_exists() => {
            ConflictError::VlanElsewhere { id: *id, parent: parent.clone() }.into()
        }
        _ => error.into(),
    }
}
