//! What is still to be done on a node.

use super::error::ConflictError;
use super::settings::{Base, WantedBond, WantedInterfaces, WantedVlan};
use crate::coordinator::{InterfaceStep, NamespaceState, Step};
use crate::names::IfName;
use crate::net::{BondOption, Link, LinkDetail, VlanProtocol};

/// Steps in their order. Nothing is left to do where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfacePlan {
    /// All of them, or none.
    pub steps: Vec<Step>,
    /// Worth a try at the end: the member that is to be active may have no carrier, and a bond is there to work without it.
    pub preference: Option<Step>,
}

/// Plans for a node with these links and routes of its main table. What is there already is checked and never changed,
/// but set up if it is down: the node's administrator, or another network, may have made it.
pub fn plan_interfaces(
    wanted: &WantedInterfaces,
    node: &NamespaceState,
) -> Result<InterfacePlan, ConflictError> {
    let mut plan = InterfacePlan::default();
    let base = match &wanted.base {
        Base::Interface(name) => {
            let link = node.link(name).ok_or_else(|| ConflictError::NoInterface(name.clone()))?;
            plan.set_up(link);
            Some(link)
        }
        Base::Bond(bond) => plan_bond(bond, node, &mut plan)?,
    };
    if let Some(vlan) = &wanted.vlan {
        plan_vlan(vlan, wanted.base.name(), base, node, &mut plan)?;
    }
    Ok(plan)
}

impl InterfacePlan {
    fn set_up(&mut self, link: &Link) {
        if !link.up {
            self.push(InterfaceStep::SetUp { dev: link.name.clone() });
        }
    }

    fn push(&mut self, step: InterfaceStep) {
        self.steps.push(Step::Interface(step));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.preference.is_none()
    }
}

/// The bond, if it is there.
fn plan_bond<'a>(
    bond: &WantedBond,
    node: &'a NamespaceState,
    plan: &mut InterfacePlan,
) -> Result<Option<&'a Link>, ConflictError> {
    if let Some(link) = node.link(&bond.name) {
        for member in check_bond(bond, link, node)? {
            plan.set_up(member);
        }
        plan.set_up(link);
        return Ok(Some(link));
    }
    let (name, mode) = (bond.name.clone(), bond.mode);
    plan.push(InterfaceStep::AddBond { dev: name.clone(), mode });
    for option in &bond.options {
        let step = InterfaceStep::SetOption { bond: name.clone(), option: option.clone() };
        match option {
            BondOption::ActiveMember(_) => plan.preference = Some(Step::Interface(step)),
            _ => plan.push(step),
        }
    }
    for member in &bond.members {
        let was_up = check_new_member(member, bond, node)?.up;
        plan.push(InterfaceStep::AddMember { bond: name.clone(), dev: member.clone(), was_up });
    }
    plan.push(InterfaceStep::SetUp { dev: name });
    Ok(None)
}

/// The members of a bond that is as it should be.
fn check_bond<'a>(
    bond: &WantedBond,
    link: &Link,
    node: &'a NamespaceState,
) -> Result<Vec<&'a Link>, ConflictError> {
    let name = || bond.name.clone();
    let LinkDetail::Bond(found) = link.detail else {
        return Err(ConflictError::NotBond { name: name(), kind: link.kind.clone() });
    };
    if found != bond.mode {
        return Err(ConflictError::BondMode { name: name(), found, wanted: bond.mode });
    }
    let missing = bond.members.iter().find(|member| node.link(member).is_none());
    if let Some(missing) = missing {
        return Err(ConflictError::NoInterface(missing.clone()));
    }
    let members: Vec<&Link> = node.links.iter().filter(|other| other.master == Some(link.index)).collect();
    let is_whole = bond.members.iter().all(|wanted| members.iter().any(|member| member.name == *wanted));
    if !is_whole || members.len() != bond.members.len() {
        let found = members.iter().map(|member| member.name.clone()).collect();
        return Err(ConflictError::BondMembers { name: name(), found, wanted: bond.members.clone() });
    }
    Ok(members)
}

/// An interface that can be taken for a bond: enslaving sets it down, which takes its routes away.
fn check_new_member<'a>(
    member: &IfName,
    bond: &WantedBond,
    node: &'a NamespaceState,
) -> Result<&'a Link, ConflictError> {
    let link = node.link(member).ok_or_else(|| ConflictError::NoInterface(member.clone()))?;
    let (member, bond) = (member.clone(), bond.name.clone());
    if let Some(master) = link.master {
        let master = name_of(master, node);
        return Err(ConflictError::MemberTaken { member, bond, master });
    }
    if node.routes.iter().any(|route| route.is_default() && route.dev == member) {
        return Err(ConflictError::DefaultRoute { member, bond });
    }
    Ok(link)
}

/// `parent` is `None` if it is still to be made.
fn plan_vlan(
    vlan: &WantedVlan,
    parent_name: &IfName,
    parent: Option<&Link>,
    node: &NamespaceState,
    plan: &mut InterfacePlan,
) -> Result<(), ConflictError> {
    // An index in another namespace says nothing here.
    let is_on_parent = |link: &Link| {
        link.peer_netns.is_none() && link.peer.is_some() && link.peer == parent.map(|parent| parent.index)
    };
    if let Some(link) = node.link(&vlan.name) {
        let LinkDetail::Vlan(found) = link.detail else {
            let (name, kind, parent) = (vlan.name.clone(), link.kind.clone(), parent_name.clone());
            return Err(ConflictError::NotVlan { name, kind, parent });
        };
        if found.id != vlan.id || found.protocol != VlanProtocol::Customer || !is_on_parent(link) {
            return Err(ConflictError::OtherVlan {
                name: vlan.name.clone(),
                found,
                found_parent: parent_of(link, node),
                wanted: vlan.id,
                parent: parent_name.clone(),
            });
        }
        plan.set_up(link);
        return Ok(());
    }
    // Upstream also refuses the same number on another interface, where it is another network.
    let is_same = |link: &&Link| {
        let LinkDetail::Vlan(found) = link.detail else { return false };
        found.id == vlan.id && found.protocol == VlanProtocol::Customer && is_on_parent(link)
    };
    if let Some(other) = node.links.iter().find(is_same) {
        let (parent, other) = (parent_name.clone(), other.name.clone());
        return Err(ConflictError::VlanTaken { id: vlan.id, parent, other });
    }
    let (dev, parent) = (vlan.name.clone(), parent_name.clone());
    plan.push(InterfaceStep::AddVlan { dev: dev.clone(), parent, id: vlan.id });
    plan.push(InterfaceStep::SetUp { dev });
    Ok(())
}

fn parent_of(link: &Link, node: &NamespaceState) -> String {
    match link.peer {
        Some(index) if link.peer_netns.is_none() => name_of(index, node),
        _ => "an interface of another network namespace".to_owned(),
    }
}

fn name_of(index: u32, node: &NamespaceState) -> String {
    let link = node.links.iter().find(|link| link.index == index);
    link.map_or_else(|| format!("the interface of index {index}"), |link| link.name.to_string())
}
