//! What is still to be done on a node.

use super::error::ConflictError;
use super::settings::{Base, WantedBond, WantedInterfaces, WantedVlan};
use crate::coordinator::{InterfaceStep, NamespaceState, Step};
use crate::names::IfName;
use crate::net::{Address, BondOption, Link, LinkDetail, Medium, Scope, VlanProtocol};

/// Of an Ethernet device.
const DEFAULT_MTU: u32 = 1500;

/// Steps in their order. Nothing is left to do where both are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfacePlan {
    /// All of them, or none.
    pub steps: Vec<Step>,
    /// Worth a try at the end: the member that is to be active may have no carrier, and a bond is there to work without it.
    pub preference: Option<Step>,
    /// Members of a bond that is there, which are not on the node (any more): it works without them.
    pub absent: Vec<IfName>,
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

    fn add_member(&mut self, bond: &WantedBond, member: &Link) {
        let (bond, dev, was_up) = (bond.name.clone(), member.name.clone(), member.up);
        self.push(InterfaceStep::AddMember { bond, dev, was_up });
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
        let members = check_bond(bond, link, node)?;
        // Of an ADD that was killed, or an interface that was away: those that are there are taken in.
        for wanted in bond.members.iter().filter(|wanted| !members.iter().any(|has| has.name == **wanted)) {
            if node.link(wanted).is_none() && !members.is_empty() {
                plan.absent.push(wanted.clone());
                continue;
            }
            plan.add_member(bond, check_new_member(wanted, bond, node)?);
        }
        for member in members {
            plan.set_up(member);
        }
        plan.set_up(link);
        return Ok(Some(link));
    }
    let (name, mode) = (bond.name.clone(), bond.mode);
    let members = bond.members.iter().map(|member| check_new_member(member, bond, node));
    let members = members.collect::<Result<Vec<_>, _>>()?;
    let mtu = members.iter().map(|member| member.mtu).min().unwrap_or(DEFAULT_MTU);
    plan.push(InterfaceStep::AddBond { dev: name.clone(), mode, mtu });
    for option in &bond.options {
        let step = InterfaceStep::SetOption { bond: name.clone(), option: option.clone() };
        match option {
            BondOption::ActiveMember(_) => plan.preference = Some(Step::Interface(step)),
            _ => plan.push(step),
        }
    }
    for member in members {
        plan.add_member(bond, member);
    }
    plan.push(InterfaceStep::SetUp { dev: name });
    Ok(None)
}

/// The members of a bond that is as it should be, or lacks some.
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
    let members: Vec<&Link> = node.links.iter().filter(|other| other.master == Some(link.index)).collect();
    if members.iter().any(|member| !bond.members.contains(&member.name)) {
        let found = members.iter().map(|member| member.name.clone()).collect();
        return Err(ConflictError::BondMembers { name: name(), found, wanted: bond.members.clone() });
    }
    Ok(members)
}

/// An interface that can be taken for a bond, which takes its routes, and its frames, away from whoever uses it.
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
    if link.medium != Medium::Ethernet {
        return Err(ConflictError::NotEthernet { member, bond });
    }
    // Also what a VLAN of it has.
    let is_on_it = |other: &&Link| other.peer == Some(link.index) && other.peer_netns.is_none();
    let users = node.links.iter().filter(is_on_it).chain([link]);
    for user in users.map(|user| &user.name) {
        if node.routes.iter().any(|route| route.is_default() && route.dev == *user) {
            return Err(ConflictError::DefaultRoute { member, bond });
        }
        let is_nodes = |address: &&Address<IfName>| address.dev == *user && address.scope == Scope::Global;
        if let Some(address) = node.addresses.iter().find(is_nodes) {
            let (dev, address) = (user.clone(), address.net.addr());
            return Err(ConflictError::NodeAddress { member, bond, dev, address });
        }
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
