//! Parsing of single values of the settings.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::SettingsError;
use crate::names::IfName;

pub(super) fn parse_nic(field: &'static str, text: &str) -> Result<IfName, SettingsError> {
    text.parse().map_err(|_| SettingsError::Nic { field, text: text.to_owned() })
}

pub(super) fn parse_cidrs(
    field: &'static str,
    texts: Option<&[String]>,
) -> Result<Vec<IpNet>, SettingsError> {
    let cidr =
        |text: &String| parse_net(text).ok_or_else(|| SettingsError::Cidr { field, text: text.clone() });
    texts.unwrap_or_default().iter().map(cidr).collect()
}

/// A single address is the network of it alone.
pub(super) fn parse_net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from)).map(|net| net.trunc())
}

pub(super) fn parse_mtu(value: Option<i64>) -> Result<u32, SettingsError> {
    let mtu = value.unwrap_or_default();
    u16::try_from(mtu).ok().filter(|mtu| *mtu >= 68).map(u32::from).ok_or(SettingsError::Mtu(mtu))
}

pub(super) fn parse_rp_filter(value: Option<i64>) -> Result<Option<u8>, SettingsError> {
    match value {
        None | Some(i64::MIN..=-1) => Ok(None),
        Some(value @ 0..=2) => Ok(Some(value as u8)),
        Some(value) => Err(SettingsError::RpFilter(value)),
    }
}

pub(super) fn parse_tx_queue_len(value: Option<i64>) -> Result<Option<u32>, SettingsError> {
    let length = value.unwrap_or_default();
    let parsed = u32::try_from(length).map_err(|_| SettingsError::TxQueueLen(length))?;
    Ok((parsed > 0).then_some(parsed))
}

/// A table of the node that is nobody's: not the kernel's own (253 to 255).
pub(super) fn parse_table(value: Option<i64>) -> Result<u32, SettingsError> {
    let table = value.unwrap_or_default();
    let parsed = u32::try_from(table).ok().filter(|table| *table > 0 && !(253..=255).contains(table));
    parsed.ok_or(SettingsError::HostRuleTable(table))
}

pub(super) fn parse_link_address(text: &str) -> Result<Ipv4Addr, SettingsError> {
    text.trim().parse().map_err(|_| SettingsError::VethLinkAddress(text.to_owned()))
}

/// Go writes `null` for a text that is not set.
pub(super) fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
