//! Pools of one family, for pods that want one address each.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use spiderpool_core::ip::Family;
use spiderpool_tests::control_plane::ControlPlane;

/// A SpiderIPPool with one range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    pub(crate) name: String,
    family: Family,
    subnet: String,
    range: [IpAddr; 2],
}

impl Pool {
    /// `size` addresses of 10.64.0.0/16.
    pub(crate) fn of_size(name: &str, size: usize) -> Result<Self> {
        let base = u32::from(Ipv4Addr::new(10, 64, 0, 0));
        let last = u16::try_from(size).context("no more than 65535 addresses fit in the subnet")?;
        ensure!(last > 0, "a pool has addresses");
        Ok(Self {
            name: name.to_owned(),
            family: Family::V4,
            subnet: "10.64.0.0/16".to_owned(),
            range: [base + 1, base + u32::from(last)].map(|address| Ipv4Addr::from(address).into()),
        })
    }

    /// All hosts of 10.128.0.0/PREFIX.
    pub(crate) fn ipv4(name: &str, prefix: u8) -> Self {
        let base = u32::from(Ipv4Addr::new(10, 128, 0, 0));
        let last = base | u32::MAX.checked_shr(prefix.into()).unwrap_or_default();
        Self {
            name: name.to_owned(),
            family: Family::V4,
            subnet: format!("10.128.0.0/{prefix}"),
            range: [base + 1, last - 1].map(|address| Ipv4Addr::from(address).into()),
        }
    }

    /// All of fd00:128::/64 but its first address.
    pub(crate) fn ipv6(name: &str) -> Self {
        let base = u128::from(Ipv6Addr::new(0xfd00, 0x128, 0, 0, 0, 0, 0, 0));
        Self {
            name: name.to_owned(),
            family: Family::V6,
            subnet: "fd00:128::/64".to_owned(),
            range: [base + 1, base | u128::from(u64::MAX)].map(|address| Ipv6Addr::from(address).into()),
        }
    }

    pub(crate) fn create(&self, plane: &ControlPlane) -> Result<()> {
        plane.apply(&self.manifest().to_string()).map(drop)
    }

    /// Deletes it and waits until it is gone: the next one may have the same addresses.
    pub(crate) fn delete(&self, plane: &ControlPlane) -> Result<()> {
        plane.kubectl(&["delete", "--timeout=60s", "spiderippool", &self.name]).map(drop)
    }

    fn manifest(&self) -> Value {
        let [first, last] = self.range;
        json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": self.name},
            "spec": {"ipVersion": self.family.version(), "subnet": self.subnet, "ips": [format!("{first}-{last}")]},
        })
    }

    /// The IPv4 and the IPv6 pools that a pod asks for.
    pub(crate) fn asked_for(&self) -> [Option<Vec<String>>; 2] {
        Family::ALL.map(|family| (family == self.family).then(|| vec![self.name.clone()]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pools_have_the_addresses_that_their_names_say() {
        let range = |pool: &Pool| pool.manifest()["spec"]["ips"][0].as_str().unwrap().to_owned();
        assert_eq!(range(&Pool::of_size("p", 1000).unwrap()), "10.64.0.1-10.64.3.232");
        assert!(Pool::of_size("p", 0).is_err() && Pool::of_size("p", 65_536).is_err());
        assert_eq!(range(&Pool::ipv4("p", 14)), "10.128.0.1-10.131.255.254");
        assert_eq!(range(&Pool::ipv4("p", 24)), "10.128.0.1-10.128.0.254");
        assert_eq!(range(&Pool::ipv6("p")), "fd00:128::1-fd00:128::ffff:ffff:ffff:ffff");
    }

    #[test]
    fn a_pod_asks_for_a_pool_of_its_family_alone() {
        assert_eq!(Pool::ipv4("p", 24).asked_for(), [Some(vec!["p".to_owned()]), None]);
        assert_eq!(Pool::ipv6("p").asked_for(), [None, Some(vec!["p".to_owned()])]);
    }
}
