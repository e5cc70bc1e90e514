//! Bonds: create, set options, take members.

use rtnetlink::packet_route::link::{
    BondAdSelect, BondAllPortActive, BondArpAllTargets, BondArpValidate, BondFailOverMac, BondLacpRate,
    BondMode as KernelMode, BondPrimaryReselect, BondXmitHashPolicy, InfoBond, InfoData, InfoKind,
    LinkAttribute, LinkInfo, LinkMessage,
};
use rtnetlink::{LinkBond, LinkMessageBuilder};
use spiderpool_core::names::IfName;
use spiderpool_core::net::{BondMode, BondNumber, BondOption};

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Creates a bond without members, down.
    pub async fn add_bond(&mut self, name: &IfName, mode: BondMode) -> Result<(), NetlinkError> {
        let message =
            LinkMessageBuilder::<LinkBond>::new(name.as_str()).mode(KernelMode::from(mode.number())).build();
        let request = self.builder().link().add(message);
        self.execute("add bond", name, request.execute()).await
    }

    /// Sets one option of a bond. `member` is the index of the member that the option names, if it names one.
    pub async fn set_bond_option(
        &mut self,
        bond: u32,
        option: &BondOption,
        member: Option<u32>,
    ) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = bond;
        message.attributes.push(LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bond),
            LinkInfo::Data(InfoData::Bond(vec![attribute(option, member.unwrap_or_default())])),
        ]));
        let request = self.builder().link().change(message);
        self.execute("set bond option", option, request.execute()).await
    }

    /// Makes a link a member of `master`, or of nothing for `None`. A bond takes only what is down, and sets it up.
    pub async fn set_master(&mut self, index: u32, master: Option<u32>) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes.push(LinkAttribute::Controller(master.unwrap_or_default()));
        let request = self.builder().link().set(message);
        self.execute("set master of link", index, request.execute()).await
    }
}

/// `member` counts where the option names one. Values have been checked: they fit the attribute's type.
fn attribute(option: &BondOption, member: u32) -> InfoBond {
    match option {
        BondOption::ArpIpTargets(targets) => InfoBond::ArpIpTarget(targets.clone()),
        BondOption::Primary(_) => InfoBond::Primary(member),
        BondOption::ActiveMember(_) => InfoBond::ActivePort(member),
        BondOption::AdActorSystem(mac) => InfoBond::AdActorSystem(mac.0),
        BondOption::Number(option, value) => number(*option, *value),
    }
}

fn number(option: BondNumber, value: u32) -> InfoBond {
    let small = value as u8;
    match option {
        BondNumber::Miimon => InfoBond::MiiMon(value),
        BondNumber::Updelay => InfoBond::UpDelay(value),
        BondNumber::Downdelay => InfoBond::DownDelay(value),
        BondNumber::PeerNotifDelay => InfoBond::PeerNotifDelay(value),
        BondNumber::UseCarrier => InfoBond::UseCarrier(value != 0),
        BondNumber::ArpInterval => InfoBond::ArpInterval(value),
        BondNumber::ArpValidate => InfoBond::ArpValidate(BondArpValidate::from(value)),
        BondNumber::ArpAllTargets => InfoBond::ArpAllTargets(BondArpAllTargets::from(value)),
        BondNumber::PrimaryReselect => InfoBond::PrimaryReselect(BondPrimaryReselect::from(small)),
        BondNumber::FailOverMac => InfoBond::FailOverMac(BondFailOverMac::from(small)),
        BondNumber::XmitHashPolicy => InfoBond::XmitHashPolicy(BondXmitHashPolicy::from(small)),
        BondNumber::ResendIgmp => InfoBond::ResendIgmp(value),
        BondNumber::AllSlavesActive => InfoBond::AllPortsActive(BondAllPortActive::from(small)),
        BondNumber::MinLinks => InfoBond::MinLinks(value),
        BondNumber::LpInterval => InfoBond::LpInterval(value),
        BondNumber::PacketsPerSlave => InfoBond::PacketsPerPort(value),
        BondNumber::LacpRate => InfoBond::AdLacpRate(BondLacpRate::from(small)),
        BondNumber::AdSelect => InfoBond::AdSelect(BondAdSelect::from(small)),
        BondNumber::AdActorSysPrio => InfoBond::AdActorSysPrio(value as u16),
        BondNumber::AdUserPortKey => InfoBond::AdUserPortKey(value as u16),
        BondNumber::TlbDynamicLb => InfoBond::TlbDynamicLb(value != 0),
    }
}
