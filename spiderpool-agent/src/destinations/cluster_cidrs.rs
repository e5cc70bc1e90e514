//! The CIDRs of the cluster that pods must reach by their cluster NIC: Services, overlay pods, `hijackCIDR`.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::crd::SpiderCoordinator;
use spiderpool_core::dataplane::OwnCidrs;
use tracing::warn;

/// The cluster's destinations that pods must reach by their cluster NIC, as SpiderCoordinator lists them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterCidrs {
    /// Service CIDRs.
    pub service: Vec<IpNet>,
    /// Overlay pod CIDRs.
    pub pod: Vec<IpNet>,
    /// `hijackCIDR`.
    pub hijack: Vec<IpNet>,
}

impl ClusterCidrs {
    /// From spec and status; what does not parse is left out with a warning.
    pub fn from_coordinator(coordinator: &SpiderCoordinator) -> Self {
        let status = coordinator.status.as_ref();
        let list = |texts: Option<&Vec<String>>, field| parse(texts.map_or(&[], Vec::as_slice), field);
        Self {
            service: list(status.map(|status| &status.service_cidr), "status.serviceCIDR"),
            pod: list(status.map(|status| &status.overlay_pod_cidr), "status.overlayPodCIDR"),
            hijack: list(coordinator.spec.settings.hijack_cidr.as_ref(), "spec.hijackCIDR"),
        }
    }

    /// What counts for a pod whose networks name CIDRs of their own: per kind theirs, if they name any.
    #[must_use]
    pub fn with_own(&self, own: &OwnCidrs) -> Self {
        let choose = |own: &Option<BTreeSet<IpNet>>, cluster: &Vec<IpNet>| {
            own.as_ref().map_or_else(|| cluster.clone(), |own| own.iter().copied().collect())
        };
        Self {
            service: choose(&own.service, &self.service),
            pod: choose(&own.pod, &self.pod),
            hijack: choose(&own.hijack, &self.hijack),
        }
    }

    /// The CIDRs of all kinds.
    pub fn all(&self) -> Vec<IpNet> {
        [&self.hijack, &self.pod, &self.service].into_iter().flatten().copied().collect()
    }
}

fn parse(texts: &[String], field: &'static str) -> Vec<IpNet> {
    let net = |text: &String| {
        let net =
            text.parse::<IpNet>().or_else(|error| text.parse::<IpAddr>().map(IpNet::from).map_err(|_| error));
        net.inspect_err(
            |error| warn!(field, %text, %error, "CIDR of SpiderCoordinator is invalid and left out"),
        )
    };
    texts.iter().filter_map(|text| net(text).ok()).map(|net| net.trunc()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Upstream's merge is per field: naming one kind leaves the others to SpiderCoordinator.
    #[test]
    fn a_network_may_name_its_own_of_one_kind() {
        let net = |text: &str| text.parse().unwrap();
        let cluster = ClusterCidrs {
            service: vec![net("10.96.0.0/12")],
            pod: vec![net("10.244.0.0/16")],
            hijack: vec![net("169.254.20.10/32")],
        };
        let own = OwnCidrs { hijack: Some([net("172.16.0.0/12")].into()), ..OwnCidrs::default() };
        let all: Vec<_> = cluster.with_own(&own).all().iter().map(ToString::to_string).collect();
        assert_eq!(all, ["172.16.0.0/12", "10.244.0.0/16", "10.96.0.0/12"]);
    }

    #[test]
    fn bare_addresses_and_host_bits_are_accepted_nonsense_left_out() {
        let texts = ["169.254.25.10", "fd00::1", "10.96.1.1/16", "x"].map(str::to_owned);
        let parsed: Vec<_> = parse(&texts, "f").iter().map(ToString::to_string).collect();
        assert_eq!(parsed, ["169.254.25.10/32", "fd00::1/128", "10.96.0.0/16"]);
    }
}
