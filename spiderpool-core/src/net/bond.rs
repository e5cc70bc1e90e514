//! Bonds: modes and options with the kernel's names, numbers and ranges (drivers/net/bonding/bond_options.c of 6.1).

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use crate::mac::MacAddr;
use crate::names::IfName;

/// How a bond uses its members (`BOND_MODE_*` of linux/if_bonding.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the mode of that name")]
pub enum BondMode {
    BalanceRr,
    ActiveBackup,
    BalanceXor,
    Broadcast,
    Lacp,
    BalanceTlb,
    BalanceAlb,
}

impl BondMode {
    /// All, by their numbers.
    pub const ALL: [Self; 7] = [
        Self::BalanceRr,
        Self::ActiveBackup,
        Self::BalanceXor,
        Self::Broadcast,
        Self::Lacp,
        Self::BalanceTlb,
        Self::BalanceAlb,
    ];

    /// The kernel's number.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The mode of this number.
    pub fn of_number(number: i64) -> Option<Self> {
        Self::ALL.get(usize::try_from(number).ok()?).copied()
    }

    const fn name(self) -> &'static str {
        match self {
            Self::BalanceRr => "balance-rr",
            Self::ActiveBackup => "active-backup",
            Self::BalanceXor => "balance-xor",
            Self::Broadcast => "broadcast",
            Self::Lacp => "802.3ad",
            Self::BalanceTlb => "balance-tlb",
            Self::BalanceAlb => "balance-alb",
        }
    }
}

impl fmt::Display for BondMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.number(), self.name())
    }
}

/// One option of a bond with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BondOption {
    /// One whose value is a number.
    Number(BondNumber, u32),
    /// `arp_ip_target`: whom ARP monitoring asks.
    ArpIpTargets(Vec<Ipv4Addr>),
    /// `primary`: the member that is active whenever it can be.
    Primary(IfName),
    /// `active_slave`: the member that is active now.
    ActiveMember(IfName),
    /// `ad_actor_system`: the MAC of LACP's packets.
    AdActorSystem(MacAddr),
}

impl fmt::Display for BondOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(option, value) => write!(f, "{} {value}", option.name()),
            Self::ArpIpTargets(targets) => {
                let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
                write!(f, "arp_ip_target {}", targets.join(","))
            }
            Self::Primary(member) => write!(f, "primary {member}"),
            Self::ActiveMember(member) => write!(f, "active_slave {member}"),
            Self::AdActorSystem(mac) => write!(f, "ad_actor_system {mac}"),
        }
    }
}

/// An option whose value is a number; many have names for their numbers. In the order in which the kernel applies
/// them (`bond_changelink()` of drivers/net/bonding/bond_netlink.c): the delays need `miimon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is the kernel's option of that name")]
pub enum BondNumber {
    Miimon,
    Updelay,
    Downdelay,
    PeerNotifDelay,
    UseCarrier,
    ArpInterval,
    ArpValidate,
    ArpAllTargets,
    PrimaryReselect,
    FailOverMac,
    XmitHashPolicy,
    ResendIgmp,
    AllSlavesActive,
    MinLinks,
    LpInterval,
    PacketsPerSlave,
    LacpRate,
    AdSelect,
    AdActorSysPrio,
    AdUserPortKey,
    TlbDynamicLb,
}

/// What is known of a [`BondNumber`].
struct Row {
    name: &'static str,
    range: RangeInclusive<u32>,
    /// Names of the values 0, 1, ...
    names: &'static [&'static str],
    modes: &'static [BondMode],
}

const INT_MAX: u32 = i32::MAX as u32;
const OFF_ON: &[&str] = &["off", "on"];
const LACP: &[BondMode] = &[BondMode::Lacp];
/// Those in which members can be watched by ARP.
const WITH_ARP: &[BondMode] =
    &[BondMode::BalanceRr, BondMode::ActiveBackup, BondMode::BalanceXor, BondMode::Broadcast];
const TLB_ALB: &[BondMode] = &[BondMode::BalanceTlb, BondMode::BalanceAlb];

impl BondNumber {
    /// All, in the kernel's order.
    pub const ALL: [Self; 21] = [
        Self::Miimon,
        Self::Updelay,
        Self::Downdelay,
        Self::PeerNotifDelay,
        Self::UseCarrier,
        Self::ArpInterval,
        Self::ArpValidate,
        Self::ArpAllTargets,
        Self::PrimaryReselect,
        Self::FailOverMac,
        Self::XmitHashPolicy,
        Self::ResendIgmp,
        Self::AllSlavesActive,
        Self::MinLinks,
        Self::LpInterval,
        Self::PacketsPerSlave,
        Self::LacpRate,
        Self::AdSelect,
        Self::AdActorSysPrio,
        Self::AdUserPortKey,
        Self::TlbDynamicLb,
    ];

    const fn row(self) -> Row {
        const fn row(
            name: &'static str,
            range: RangeInclusive<u32>,
            names: &'static [&'static str],
            modes: &'static [BondMode],
        ) -> Row {
            Row { name, range, names, modes }
        }
        const ANY: &[BondMode] = &BondMode::ALL;
        match self {
            Self::Miimon => row("miimon", 0..=INT_MAX, &[], ANY),
            Self::Updelay => row("updelay", 0..=INT_MAX, &[], ANY),
            Self::Downdelay => row("downdelay", 0..=INT_MAX, &[], ANY),
            Self::PeerNotifDelay => row("peer_notif_delay", 0..=300_000, &[], ANY),
            Self::UseCarrier => row("use_carrier", 0..=1, OFF_ON, ANY),
            Self::ArpInterval => row("arp_interval", 0..=INT_MAX, &[], WITH_ARP),
            Self::ArpValidate => row(
                "arp_validate",
                0..=6,
                &["none", "active", "backup", "all", "filter", "filter_active", "filter_backup"],
                WITH_ARP,
            ),
            Self::ArpAllTargets => row("arp_all_targets", 0..=1, &["any", "all"], ANY),
            Self::PrimaryReselect => row("primary_reselect", 0..=2, &["always", "better", "failure"], ANY),
            Self::FailOverMac => row("fail_over_mac", 0..=2, &["none", "active", "follow"], ANY),
            Self::XmitHashPolicy => row(
                "xmit_hash_policy",
                0..=5,
                &["layer2", "layer3+4", "layer2+3", "encap2+3", "encap3+4", "vlan+srcmac"],
                ANY,
            ),
            Self::ResendIgmp => row("resend_igmp", 0..=255, &[], ANY),
            Self::AllSlavesActive => row("all_slaves_active", 0..=1, OFF_ON, ANY),
            Self::MinLinks => row("min_links", 0..=INT_MAX, &[], ANY),
            Self::LpInterval => row("lp_interval", 1..=INT_MAX, &[], ANY),
            Self::PacketsPerSlave => row("packets_per_slave", 0..=65_535, &[], &[BondMode::BalanceRr]),
            Self::LacpRate => row("lacp_rate", 0..=1, &["slow", "fast"], LACP),
            Self::AdSelect => row("ad_select", 0..=2, &["stable", "bandwidth", "count"], ANY),
            Self::AdActorSysPrio => row("ad_actor_sys_prio", 1..=65_535, &[], LACP),
            Self::AdUserPortKey => row("ad_user_port_key", 0..=1023, &[], LACP),
            Self::TlbDynamicLb => row("tlb_dynamic_lb", 0..=1, OFF_ON, TLB_ALB),
        }
    }

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// In which modes the kernel takes it.
    pub const fn modes(self) -> &'static [BondMode] {
        self.row().modes
    }

    /// The value that a text is: a number of the option's range, or the name of one.
    pub fn parse(self, text: &str) -> Option<u32> {
        let Row { range, names, .. } = self.row();
        if let Some(index) = names.iter().position(|name| *name == text) {
            return u32::try_from(index).ok();
        }
        text.parse().ok().filter(|value| range.contains(value))
    }

    /// Which values it has, in words.
    pub fn values(self) -> String {
        let Row { range, names, .. } = self.row();
        let numbers = format!("a number from {} to {}", range.start(), range.end());
        if names.is_empty() { numbers } else { format!("{numbers} or one of {}", names.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_numbered_as_the_kernel_does() {
        for (number, mode) in (0..).zip(BondMode::ALL) {
            assert_eq!((i64::from(mode.number()), BondMode::of_number(number)), (number, Some(mode)));
        }
        assert_eq!((BondMode::of_number(7), BondMode::of_number(-1)), (None, None));
        assert_eq!(BondMode::Lacp.to_string(), "4 (802.3ad)");
    }

    #[test]
    fn values_are_numbers_or_names() {
        let check = |option: BondNumber, text: &str, value: Option<u32>| {
            assert_eq!(option.parse(text), value, "{} {text}", option.name());
        };
        check(BondNumber::LacpRate, "fast", Some(1));
        check(BondNumber::LacpRate, "0", Some(0));
        check(BondNumber::LacpRate, "2", None);
        check(BondNumber::XmitHashPolicy, "layer3+4", Some(1));
        check(BondNumber::Miimon, "100", Some(100));
        check(BondNumber::Miimon, "4294967295", None);
        check(BondNumber::AdActorSysPrio, "0", None);
        assert_eq!(BondNumber::LacpRate.values(), "a number from 0 to 1 or one of slow, fast");
    }

    /// A name that is given for more numbers than there are, or for fewer, is a wrong table.
    #[test]
    fn options_with_names_have_one_for_each_value() {
        for option in BondNumber::ALL {
            let Row { range, names, .. } = option.row();
            assert!(names.is_empty() || names.len() == range.count(), "{}", option.name());
        }
    }
}
