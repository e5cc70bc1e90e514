//! `status.controlledIPPools` of a SpiderSubnet: which pool has which of its addresses, in upstream's form.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::application::Application;
use crate::ip::{Family, IpRange, IpSet};

/// What a pool has of a subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlledPool {
    /// Its addresses.
    pub ips: IpSet,
    /// The application that it was made for; none of one that somebody has made.
    pub application: Option<Application>,
}

/// The pools of a subnet, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlledPools(pub BTreeMap<String, ControlledPool>);

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    application: Option<String>,
}

impl ControlledPools {
    /// As it is written. What does not parse, and records that do not, are left out: they are rebuilt from the pools.
    pub fn parse(text: Option<&str>, family: Family) -> Self {
        let records: BTreeMap<String, Record> =
            text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let parsed = records.into_iter().filter_map(|(name, record)| {
            let application = record.application.map(|text| text.parse()).transpose().ok()?;
            let ranges: Result<Vec<IpRange>, _> = record.ips.iter().map(|text| text.parse()).collect();
            let ips = IpSet::from_ranges(family, ranges.ok()?);
            Some((name, ControlledPool { ips, application }))
        });
        Self(parsed.collect())
    }

    /// As it is to be written; `None`, which removes the field, if there is no pool.
    pub fn text(&self) -> Option<String> {
        let records: BTreeMap<&String, Record> = self
            .0
            .iter()
            .map(|(name, pool)| {
                let ips = pool.ips.ranges().map(|range| range.to_string()).collect();
                (name, Record { ips, application: pool.application.as_ref().map(ToString::to_string) })
            })
            .collect();
        if records.is_empty() { None } else { serde_json::to_string(&records).ok() }
    }

    /// The pools that have less than is recorded, or are not there, by what is known of each: a write of theirs may be on its
    /// way, or not be seen yet.
    pub fn behind<'a>(&self, known: impl Fn(&str) -> Option<&'a IpSet>) -> Vec<String> {
        let is_behind = |name: &str, recorded: &IpSet| {
            known(name).is_none_or(|usable| !recorded.difference(usable).is_empty())
        };
        let behind = self.0.iter().filter(|(name, pool)| is_behind(name, &pool.ips));
        behind.map(|(name, _)| name.clone()).collect()
    }

    /// All addresses that pools have.
    pub fn addresses(&self, family: Family) -> IpSet {
        self.0.values().fold(IpSet::empty(family), |all, pool| all.union(&pool.ips))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"auto4-web-eth0-1a2b3":{"ips":["10.6.1.10-10.6.1.12"],"application":"apps_v1_Deployment_ns1_web"},"manual-pool":{"ips":["10.6.1.40","10.6.1.50-10.6.1.60"]}}"#;

    #[test]
    fn the_form_is_upstreams() {
        let pools = ControlledPools::parse(Some(TEXT), Family::V4);
        assert_eq!(pools.text().as_deref(), Some(TEXT));
        assert_eq!(pools.addresses(Family::V4).len(), 15);
        assert_eq!(pools.0["auto4-web-eth0-1a2b3"].application.as_ref().unwrap().name, "web");
        assert_eq!(ControlledPools::default().text(), None);
        assert_eq!(ControlledPools::parse(None, Family::V4), ControlledPools::default());
    }

    /// I00022: somebody has written into it.
    #[test]
    fn false_records_are_left_out() {
        let text =
            r#"{"a":{"ips":["10.6.1.9"]},"b":{"ips":["x"]},"c":{"ips":["10.6.1.8"],"application":"x"}}"#;
        let pools = ControlledPools::parse(Some(text), Family::V4);
        assert_eq!(pools.0.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(ControlledPools::parse(Some("junk"), Family::V4), ControlledPools::default());
    }
}
