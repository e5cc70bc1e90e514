//! Steps that make interfaces of the node: VLANs and bonds.

use nix::libc;
use spiderpool_core::coordinator::{InterfaceStep, Namespace};
use spiderpool_core::names::IfName;
use spiderpool_core::net::BondOption;
use tracing::warn;

use super::{Executor, StepError};
use crate::netlink::NetlinkError;

impl Executor<'_> {
    pub(super) async fn execute_on_interface(&mut self, step: &InterfaceStep) -> Result<(), StepError> {
        match step {
            InterfaceStep::AddVlan { dev, parent, id } => {
                let (node, parent) = self.device(Namespace::Node, parent).await?;
                node.add_vlan(dev, parent, *id).await.map_err(no_module("8021q"))?;
                // Rolling back deletes this one, whatever is called so by then.
                self.device(Namespace::Node, dev).await?;
            }
            InterfaceStep::AddBond { dev, mode, mtu } => {
                self.node.add_bond(dev, *mode).await.map_err(no_module("bonding"))?;
                let (node, index) = self.device(Namespace::Node, dev).await?;
                if let Err(error) = node.set_mtu(index, *mtu).await {
                    node.delete_link_of_index(index).await?;
                    return Err(error.into());
                }
            }
            InterfaceStep::SetOption { bond, option } => {
                let member = match option {
                    BondOption::Primary(member) | BondOption::ActiveMember(member) => {
                        Some(self.device(Namespace::Node, member).await?.1)
                    }
                    _ => None,
                };
                let (node, bond) = self.device(Namespace::Node, bond).await?;
                node.set_bond_option(bond, option, member).await?;
            }
            InterfaceStep::AddMember { bond, dev, was_up } => self.add_member(bond, dev, *was_up).await?,
            InterfaceStep::RemoveMember { dev, up } => {
                let (node, index) = self.device(Namespace::Node, dev).await?;
                node.set_master(index, None).await?;
                if *up {
                    node.set_up(index).await?;
                }
            }
            InterfaceStep::SetUp { dev } => {
                let (node, index) = self.device(Namespace::Node, dev).await?;
                node.set_up(index).await?;
            }
            InterfaceStep::Delete { dev } => {
                let (node, index) = self.device(Namespace::Node, dev).await?;
                node.delete_link_of_index(index).await?;
                self.indexes.remove(&(Namespace::Node, dev.clone()));
            }
        }
        Ok(())
    }

    /// What is not taken is up again, if it was. It is asked for while it is up: one that is in use is refused for that first
    /// (`bond_enslave()` in drivers/net/bonding/bond_main.c), and loses nothing.
    async fn add_member(&mut self, bond: &IfName, dev: &IfName, was_up: bool) -> Result<(), StepError> {
        let master = self.device(Namespace::Node, bond).await?.1;
        let (node, index) = self.device(Namespace::Node, dev).await?;
        let mut asked = node.set_master(index, Some(master)).await;
        if asked.as_ref().is_err_and(|error| error.errno() == Some(libc::EPERM)) {
            node.set_down(index).await?;
            asked = node.set_master(index, Some(master)).await;
            if asked.is_err()
                && was_up
                && let Err(error) = node.set_up(index).await
            {
                warn!(%error, dev = %dev, "what is no member of the bond cannot be set up again");
            }
        }
        let Err(source) = asked else { return Ok(()) };
        if source.errno() == Some(libc::EBUSY) {
            return Err(StepError::InUse { dev: dev.clone(), master: bond.clone(), source });
        }
        Err(source.into())
    }
}

/// `rtnl_newlink()` has asked for the module before it says that there is none.
fn no_module(module: &'static str) -> impl FnOnce(NetlinkError) -> StepError {
    move |source| {
        // A text is about the interface, and not about the module.
        if source.errno() == Some(libc::EOPNOTSUPP)
            && source.extack().is_none_or(|text| text == "Unknown device type")
        {
            StepError::NoModule { module, source }
        } else {
            source.into()
        }
    }
}
