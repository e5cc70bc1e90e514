//! A value for every dimension that a pod has once and for all.

use std::fmt;

use spiderpool_core::coordinator::Dataplane;

use super::covering;
use super::dimension::{
    DATAPLANES, DefaultNetwork, DefaultRoute, Gateway, Mode, Nics, Pools, ProxyMode, RouteHints,
};

/// What a pod under test, and its node, are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// What steers packets.
    pub dataplane: Dataplane,
    /// Whose eth0 is.
    pub mode: Mode,
    /// The network of eth0.
    pub network: DefaultNetwork,
    /// kube-proxy's mode.
    pub proxy: ProxyMode,
    /// The underlay NICs.
    pub nics: Nics,
    /// Where the default route is.
    pub default_route: DefaultRoute,
    /// Whether the pod gets route hints.
    pub hints: RouteHints,
    /// What the pools of its underlay NICs name.
    pub pools: Pools,
}

/// How many values each dimension has, in the order of [`Setting::of`].
const LEVELS: [usize; 8] = [
    DATAPLANES.len(),
    Mode::ALL.len(),
    DefaultNetwork::ALL.len(),
    ProxyMode::ALL.len(),
    Nics::ALL.len(),
    DefaultRoute::ALL.len(),
    RouteHints::ALL.len(),
    Pools::ALL.len(),
];

impl Setting {
    /// A pod with net1 whose eth0 is Calico's, as most are.
    pub fn usual(dataplane: Dataplane, default_route: DefaultRoute) -> Self {
        Self {
            dataplane,
            mode: Mode::Overlay,
            network: DefaultNetwork::Calico,
            proxy: ProxyMode::Nftables,
            nics: Nics::One,
            default_route,
            hints: RouteHints::Auto,
            pools: Pools::Gateway,
        }
    }

    /// Every setting that there is.
    pub fn all() -> Vec<Self> {
        covering::all(&LEVELS, may_be).iter().map(|row| Self::of(row)).collect()
    }

    /// So many of each dataplane that every two values of its other dimensions are in one of them.
    pub fn pairwise() -> Vec<Self> {
        let of_dataplane = |dataplane: usize| {
            let with = move |row: &[Option<usize>]| [&[Some(dataplane)], row].concat();
            let rows = covering::pairwise(&LEVELS[1..], move |row| may_be(&with(row)));
            rows.into_iter().map(move |row| Self::of(&[&[dataplane], row.as_slice()].concat()))
        };
        (0..DATAPLANES.len()).flat_map(of_dataplane).collect()
    }

    /// The names of the pod's underlay NICs.
    pub fn underlay_nics(self) -> &'static [&'static str] {
        let all: &[&str] = match self.mode {
            Mode::Overlay => &["net1", "net2", "net3"],
            Mode::Underlay => &["eth0", "net1", "net2"],
        };
        &all[..self.nics.underlays().len()]
    }

    /// What flows call a NIC.
    pub fn kind(nic: &'static str) -> &'static str {
        if matches!(nic, "eth0" | "net1") { nic } else { "further NIC" }
    }

    /// The first of them.
    pub fn first_underlay_nic(self) -> &'static str {
        self.underlay_nics()[0]
    }

    fn of(row: &[usize]) -> Self {
        Self {
            dataplane: DATAPLANES[row[0]],
            mode: Mode::ALL[row[1]],
            network: DefaultNetwork::ALL[row[2]],
            proxy: ProxyMode::ALL[row[3]],
            nics: Nics::ALL[row[4]],
            default_route: DefaultRoute::ALL[row[5]],
            hints: RouteHints::ALL[row[6]],
            pools: Pools::ALL[row[7]],
        }
    }
}

impl Gateway {
    /// Whether anything is promised of such a pod then. Without hints a packet whose next hop does not resolve never
    /// reaches a program; whose default route is on the underlay has that next hop for everything.
    pub fn can_be(self, setting: &Setting) -> bool {
        let by_overlay = setting.mode == Mode::Overlay && setting.default_route == DefaultRoute::Eth0;
        self != Self::Dead || setting.hints == RouteHints::Auto || by_overlay
    }
}

/// Whether there can be such a pod: without a gateway, there is no default route to have, and without hints too, a pod all of whose
/// NICs are on the underlay has no route to the cluster; net1 may be a second NIC on the underlay; and hints are for programs.
fn may_be(row: &[Option<usize>]) -> bool {
    let dataplane = row[0].map(|value| DATAPLANES[value]);
    let mode = row[1].map(|value| Mode::ALL[value]);
    let nics = row[4].map(|value| Nics::ALL[value]);
    let default_route = row[5].map(|value| DefaultRoute::ALL[value]);
    let hints = row[6].map(|value| RouteHints::ALL[value]);
    let pools = row[7].map(|value| Pools::ALL[value]);
    (default_route, pools) != (Some(DefaultRoute::Net1), Some(Pools::NoGateway))
        && (dataplane, hints) != (Some(Dataplane::Policy), Some(RouteHints::Never))
        && (mode, nics, default_route) != (Some(Mode::Underlay), Some(Nics::One), Some(DefaultRoute::Net1))
        && (mode, hints, pools) != (Some(Mode::Underlay), Some(RouteHints::Never), Some(Pools::NoGateway))
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}, {}, {}, {}, {}, default route on {}, route hints {}, {}",
            self.dataplane,
            self.mode,
            self.network,
            self.proxy,
            self.nics,
            self.default_route,
            self.hints,
            self.pools
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_two_values_that_may_meet_do() {
        let pairs = |settings: &[Setting]| -> BTreeSet<(String, String)> {
            let values = |setting: &Setting| {
                let text = setting.to_string();
                text.split(", ").map(str::to_owned).collect::<Vec<_>>()
            };
            let of = |setting| {
                let values = values(setting);
                let with = |value: &String| {
                    values.iter().map(|other| (value.clone(), other.clone())).collect::<Vec<_>>()
                };
                values.iter().flat_map(with).collect::<Vec<_>>()
            };
            settings.iter().flat_map(of).collect()
        };
        let (all, chosen) = (Setting::all(), Setting::pairwise());
        assert!(chosen.iter().all(|setting| all.contains(setting)));
        for dataplane in DATAPLANES {
            let of = |settings: &[Setting]| -> Vec<Setting> {
                settings.iter().filter(|setting| setting.dataplane == dataplane).copied().collect()
            };
            let (all, chosen) = (of(&all), of(&chosen));
            assert_eq!(pairs(&all), pairs(&chosen), "{dataplane}");
            assert!(chosen.len() <= 20, "{dataplane}: {} pods", chosen.len());
        }
    }

    #[test]
    fn a_pod_without_gateways_has_its_default_route_on_eth0() {
        let mut without = Setting::all();
        without.retain(|setting| setting.pools == Pools::NoGateway);
        assert!(!without.is_empty());
        assert!(without.iter().all(|setting| setting.default_route == DefaultRoute::Eth0));
    }
}
