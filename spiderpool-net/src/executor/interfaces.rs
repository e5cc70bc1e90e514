//! Steps that make interfaces of the node: VLANs and bonds.

use nix::libc;
use spiderpool_core::coordinator::{InterfaceStep, Namespace};
use spiderpool_core::names::IfName;
use spiderpool_core::net::BondOption;

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
            InterfaceStep::AddBond { dev, mode } => {
                self.node.add_bond(dev, *mode).await.map_err(no_module("bonding"))?;
                self.device(Namespace::Node, dev).await?;
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

    /// What is not taken is up again, if it was.
    async fn add_member(&mut self, bond: &IfName, dev: &IfName, was_up: bool) -> Result<(), StepError> {
        let master = self.device(Namespace::Node, bond).await?.1;
        let (node, index) = self.device(Namespace::Node, dev).await?;
        node.set_down(index).await?;
        let Err(source) = node.set_master(index, Some(master)).await else { return Ok(()) };
        if was_up {
            node.set_up(index).await?;
        }
        if source.errno() == Some(libc::EBUSY) {
            return Err(StepError::InUse { dev: dev.clone(), master: bond.clone(), source });
        }
        Err(source.into())
    }
}

/// `rtnl_newlink()` has asked for the module before it says that there is none.
fn no_module(module: &'static str) -> impl FnOnce(NetlinkError) -> StepError {
    move |source| {
        if source.errno() == Some(libc::EOPNOTSUPP) {
            StepError::NoModule { module, source }
        } else {
            source.into()
        }
    }
}
