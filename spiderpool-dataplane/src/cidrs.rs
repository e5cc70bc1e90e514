//! The map `cluster_cidrs`: what is steered to the cluster NIC, by profile.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use aya::maps::lpm_trie::Key;
use ipnet::IpNet;
use spiderpool_ebpf_common::addr::Addr;
use spiderpool_ebpf_common::maps::{CidrAction, CidrEntry, CidrKey, CidrKind, names};

use crate::batch::Walk;
use crate::error::MapError;
use crate::load::Dataplane;

fn addr(ip: IpAddr) -> Addr {
    match ip {
        IpAddr::V4(ip) => Addr::v4(ip.octets()),
        IpAddr::V6(ip) => Addr::v6(ip.octets()),
    }
}

fn key(profile: u16, net: IpNet) -> Key<CidrKey> {
    let network = addr(net.network());
    Key::new(CidrKey::prefix_len(network, net.prefix_len()), CidrKey::new(profile, network))
}

/// The network of a key; `None` for one that this crate did not write.
fn net(key: &Key<CidrKey>) -> Option<IpNet> {
    let bytes = key.data().addr.bytes;
    let (ip, head) = match std::net::Ipv6Addr::from(bytes) {
        v6 if Addr::v6(bytes).is_v4() => (IpAddr::V4(v6.to_ipv4_mapped()?), 32 + 96),
        v6 => (IpAddr::V6(v6), 32),
    };
    IpNet::new(ip, u8::try_from(key.prefix_len().checked_sub(head)?).ok()?).ok()
}

impl Dataplane {
    /// Makes the entries of a profile exactly `want` (of two for one network the later counts): what is new
    /// or different is written first, then what is gone is deleted; what is equal is not touched.
    pub fn cidrs_set(
        &mut self,
        profile: u16,
        want: &[(IpNet, CidrAction, CidrKind)],
    ) -> Result<(), MapError> {
        let want: BTreeMap<IpNet, (CidrAction, CidrKind)> =
            want.iter().map(|&(net, action, kind)| (net.trunc(), (action, kind))).collect();
        let have: BTreeMap<IpNet, (CidrAction, CidrKind)> =
            self.cidrs(profile)?.into_iter().map(|(net, action, kind)| (net, (action, kind))).collect();
        for (net, &(action, kind)) in &want {
            if have.get(net) != Some(&(action, kind)) {
                let entry = CidrEntry::new(action, kind);
                self.maps
                    .cidrs
                    .insert(&key(profile, *net), entry, 0)
                    .map_err(MapError::of(names::CLUSTER_CIDRS))?;
                self.count_changes(usize::from(!have.contains_key(net)), 0);
            }
        }
        for net in have.keys().filter(|net| !want.contains_key(net)) {
            self.maps.cidrs.remove(&key(profile, *net)).map_err(MapError::of(names::CLUSTER_CIDRS))?;
            self.count_changes(0, 1);
        }
        Ok(())
    }

    /// Whether these would steer less of a profile than its entries do: one that steers goes or stays.
    pub fn steers_less(
        &self,
        profile: u16,
        want: &[(IpNet, CidrAction, CidrKind)],
    ) -> Result<bool, MapError> {
        let steers = |(net, action, _): &(IpNet, CidrAction, CidrKind)| {
            (*action == CidrAction::Steer).then(|| net.trunc())
        };
        let wanted: BTreeSet<IpNet> = want.iter().filter_map(steers).collect();
        let stays: BTreeSet<IpNet> =
            want.iter().filter(|item| steers(item).is_none()).map(|(net, ..)| net.trunc()).collect();
        let have = self.cidrs(profile)?;
        let lost = have.iter().filter_map(steers).any(|net| !wanted.contains(&net));
        let is_new_stay = |net: &IpNet| !have.iter().any(|item| item.0 == *net && steers(item).is_none());
        Ok(lost || (!have.is_empty() && stays.iter().any(is_new_stay)))
    }

    /// Deletes all entries of a profile.
    pub fn cidrs_remove_profile(&mut self, profile: u16) -> Result<(), MapError> {
        self.cidrs_set(profile, &[])
    }

    /// The profiles that have entries.
    pub fn cidr_profiles(&self) -> Result<BTreeSet<u16>, MapError> {
        let mut profiles = BTreeSet::new();
        let mut walk = Walk::<Key<CidrKey>, CidrEntry>::new();
        while walk.step(&self.maps.cidrs).map_err(MapError::of(names::CLUSTER_CIDRS))? {
            profiles.extend(walk.entries().map(|(key, _)| key.data().profile));
        }
        Ok(profiles)
    }

    fn count_changes(&mut self, more: usize, less: usize) {
        self.cidr_entries = self.cidr_entries.map(|count| count + more - less);
    }

    /// How many entries there are. They are counted once; afterwards nobody else writes them.
    pub(crate) fn count_cidrs(&mut self) -> Result<usize, MapError> {
        if let Some(count) = self.cidr_entries {
            return Ok(count);
        }
        let mut count = 0;
        let mut walk = Walk::<Key<CidrKey>, CidrEntry>::new();
        while walk.step(&self.maps.cidrs).map_err(MapError::of(names::CLUSTER_CIDRS))? {
            count += walk.entries().count();
        }
        self.cidr_entries = Some(count);
        Ok(count)
    }

    /// The entries of a profile, sorted.
    pub fn cidrs(&self, profile: u16) -> Result<Vec<(IpNet, CidrAction, CidrKind)>, MapError> {
        let mut out = Vec::new();
        let mut walk = Walk::<Key<CidrKey>, CidrEntry>::new();
        while walk.step(&self.maps.cidrs).map_err(MapError::of(names::CLUSTER_CIDRS))? {
            for (key, entry) in walk.entries().filter(|(key, _)| key.data().profile == profile) {
                let (action, kind) = (CidrAction::from_value(entry.action), CidrKind::from_value(entry.kind));
                if let (Some(net), Some(action), Some(kind)) = (net(key), action, kind) {
                    out.push((net, action, kind));
                }
            }
        }
        out.sort_unstable();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{key, net};

    #[test]
    fn keys_round_trip() {
        for s in ["0.0.0.0/0", "10.96.0.0/12", "10.6.1.1/32", "::/0", "fd00:10:96::/112", "fd00::1/128"] {
            assert_eq!(net(&key(7, s.parse().unwrap())), Some(s.parse().unwrap()));
        }
        assert_eq!(key(7, "10.96.0.0/12".parse().unwrap()).prefix_len(), 32 + 96 + 12);
    }
}
