//! `bond.options`: `KEY=VALUE;KEY=VALUE`.

use std::net::Ipv4Addr;

use thiserror::Error;

use crate::mac::MacAddr;
use crate::names::IfName;
use crate::net::{BondMode, BondNumber, BondOption};

/// Keys whose values are no numbers.
const OTHER_KEYS: [&str; 4] = ["active_slave", "ad_actor_system", "arp_ip_target", "primary"];
/// Modes in which one member is chosen.
const WITH_PRIMARY: &[BondMode] = &[BondMode::ActiveBackup, BondMode::BalanceTlb, BondMode::BalanceAlb];
/// `BOND_MAX_ARP_TARGETS` of include/net/bonding.h.
const MAX_ARP_TARGETS: usize = 16;
/// How often links are looked at, in milliseconds, where nothing else is said: without it the kernel never notices that one
/// is dead.
const DEFAULT_MIIMON: u32 = 100;

/// What is wrong with the options of a bond.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BondOptionError {
    /// Not KEY=VALUE.
    #[error("{0:?} is not KEY=VALUE: write options as KEY=VALUE;KEY=VALUE")]
    Pair(String),
    /// Not an option.
    #[error("{key:?} is no option of a bond: there are {}", known.join(", "))]
    Unknown {
        /// As written.
        key: String,
        /// All options.
        known: Vec<&'static str>,
    },
    /// Given more than once.
    #[error("{0} is there more than once")]
    Repeated(&'static str),
    /// Not a value of the option.
    #[error("{key}={text}: the value must be {values}")]
    Value {
        /// The option.
        key: &'static str,
        /// As written.
        text: String,
        /// What it may be.
        values: String,
    },
    /// Not an option of a bond of this mode.
    #[error("{key} does not work in mode {mode}: the kernel takes it in mode {}", list(modes))]
    Mode {
        /// The option.
        key: &'static str,
        /// The bond's.
        mode: BondMode,
        /// Those in which it works.
        modes: &'static [BondMode],
    },
    /// A NIC that is not in the bond.
    #[error("{key}={name}: it must be one of the bond's interfaces")]
    NotMember {
        /// The option.
        key: &'static str,
        /// As written.
        name: IfName,
    },
    /// Two options that exclude each other.
    #[error("{0} and {1} exclude each other: links are watched by miimon or by ARP")]
    Together(&'static str, &'static str),
    /// An option that needs another.
    #[error("{0} needs {1}")]
    Needs(&'static str, &'static str),
}

fn list(modes: &[BondMode]) -> String {
    modes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Parses them, for a bond of this mode and these members: in the order in which they are to be set, `active_slave` last.
pub fn parse_bond_options(
    text: &str,
    mode: BondMode,
    members: &[IfName],
) -> Result<Vec<BondOption>, BondOptionError> {
    let mut options: Vec<BondOption> = Vec::new();
    for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let is_pair = pair.matches('=').count() == 1;
        let (key, value) =
            pair.split_once('=').filter(|_| is_pair).ok_or_else(|| BondOptionError::Pair(pair.to_owned()))?;
        let option = parse(key.trim(), value.trim(), mode, members)?;
        if options.iter().any(|other| key_of(other) == key_of(&option)) {
            return Err(BondOptionError::Repeated(key_of(&option)));
        }
        options.push(option);
    }
    check_monitoring(&options)?;
    let watches_by_arp = number(&options, BondNumber::ArpInterval).is_some_and(|interval| interval > 0);
    if number(&options, BondNumber::Miimon).is_none() && !watches_by_arp {
        options.push(BondOption::Number(BondNumber::Miimon, DEFAULT_MIIMON));
    }
    options.sort_by_key(rank);
    Ok(options)
}

fn parse(key: &str, value: &str, mode: BondMode, members: &[IfName]) -> Result<BondOption, BondOptionError> {
    // Upstream's name for it.
    let key = if key == "up_delay" { "updelay" } else { key };
    if let Some(option) = BondNumber::ALL.into_iter().find(|option| option.name() == key) {
        let parsed = option.parse(value);
        let parsed = parsed.ok_or_else(|| bad_value(option.name(), value, option.values()))?;
        check_mode(option.name(), mode, option.modes())?;
        return Ok(BondOption::Number(option, parsed));
    }
    let Some(key) = OTHER_KEYS.into_iter().find(|known| *known == key) else {
        let mut known: Vec<_> = BondNumber::ALL.into_iter().map(BondNumber::name).chain(OTHER_KEYS).collect();
        known.sort_unstable();
        return Err(BondOptionError::Unknown { key: key.to_owned(), known });
    };
    match key {
        "arp_ip_target" => {
            check_mode(key, mode, BondNumber::ArpInterval.modes())?;
            arp_targets(value).map(BondOption::ArpIpTargets).ok_or_else(|| {
                bad_value(key, value, format!("1 to {MAX_ARP_TARGETS} IPv4 addresses, as [\"10.6.0.1\"]"))
            })
        }
        "ad_actor_system" => {
            check_mode(key, mode, BondNumber::LacpRate.modes())?;
            let mac = value.parse::<MacAddr>().ok().filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]);
            let mac = mac.ok_or_else(|| bad_value(key, value, "the MAC of one station".to_owned()))?;
            Ok(BondOption::AdActorSystem(mac))
        }
        _ => {
            check_mode(key, mode, WITH_PRIMARY)?;
            let name: IfName = value
                .parse()
                .map_err(|_| bad_value(key, value, "the name of one of the bond's interfaces".to_owned()))?;
            if !members.contains(&name) {
                return Err(BondOptionError::NotMember { key, name });
            }
            Ok(if key == "primary" { BondOption::Primary(name) } else { BondOption::ActiveMember(name) })
        }
    }
}

/// A JSON array, as upstream has it, or a list with commas, as the kernel has it.
fn arp_targets(text: &str) -> Option<Vec<Ipv4Addr>> {
    let targets: Vec<Ipv4Addr> = if text.starts_with('[') {
        serde_json::from_str(text).ok()?
    } else {
        text.split(',').map(|part| part.trim().parse().ok()).collect::<Option<_>>()?
    };
    (1..=MAX_ARP_TARGETS).contains(&targets.len()).then_some(targets)
}

fn bad_value(key: &'static str, text: &str, values: String) -> BondOptionError {
    BondOptionError::Value { key, text: text.to_owned(), values }
}

fn check_mode(key: &'static str, mode: BondMode, modes: &'static [BondMode]) -> Result<(), BondOptionError> {
    if modes.contains(&mode) { Ok(()) } else { Err(BondOptionError::Mode { key, mode, modes }) }
}

/// The kernel refuses some of these with a bare errno, and takes others although no link would ever count as up.
fn check_monitoring(options: &[BondOption]) -> Result<(), BondOptionError> {
    const DELAYS: [BondNumber; 3] = [BondNumber::Updelay, BondNumber::Downdelay, BondNumber::PeerNotifDelay];
    let (arp, miimon) = (BondNumber::ArpInterval, BondNumber::Miimon);
    let is_set = |option| number(options, option).is_some_and(|value| value > 0);
    let targets = options.iter().any(|option| matches!(option, BondOption::ArpIpTargets(_)));
    if is_set(arp) {
        let excluded = [miimon].into_iter().chain(DELAYS).find(|option| is_set(*option));
        if let Some(excluded) = excluded {
            return Err(BondOptionError::Together(arp.name(), excluded.name()));
        }
        if !targets {
            return Err(BondOptionError::Needs(arp.name(), "arp_ip_target"));
        }
    }
    if number(options, miimon) == Some(0)
        && let Some(delay) = DELAYS.into_iter().find(|option| is_set(*option))
    {
        return Err(BondOptionError::Needs(delay.name(), "miimon"));
    }
    Ok(())
}

fn number(options: &[BondOption], wanted: BondNumber) -> Option<u32> {
    options.iter().find_map(|option| match option {
        BondOption::Number(option, value) if *option == wanted => Some(*value),
        _ => None,
    })
}

const fn key_of(option: &BondOption) -> &'static str {
    match option {
        BondOption::Number(option, _) => option.name(),
        BondOption::ArpIpTargets(_) => "arp_ip_target",
        BondOption::Primary(_) => "primary",
        BondOption::ActiveMember(_) => "active_slave",
        BondOption::AdActorSystem(_) => "ad_actor_system",
    }
}

/// The kernel's order; a primary is looked for among members, and noted for those to come.
fn rank(option: &BondOption) -> usize {
    match option {
        BondOption::Number(option, _) => {
            BondNumber::ALL.iter().position(|other| other == option).unwrap_or_default()
        }
        BondOption::ArpIpTargets(_) => BondNumber::ALL.len(),
        BondOption::AdActorSystem(_) => BondNumber::ALL.len() + 1,
        BondOption::Primary(_) => BondNumber::ALL.len() + 2,
        BondOption::ActiveMember(_) => BondNumber::ALL.len() + 3,
    }
}
