//! What the programs know of a pod's NICs: the entries of the map `nics`.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{NicRole, RouteRank};
use spiderpool_core::names::ContainerId;
use spiderpool_dataplane::{
    DEFAULT_BACKUP, DEFAULT_NONE, DEFAULT_USED, ExitMode, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK,
    ROLE_UNDERLAY,
};
use thiserror::Error;

use crate::pod_network::{NicRecord, PodRecord};

/// How many underlay NICs a pod may have: ids are few, and all pods' need some.
const MOST_UNDERLAY_NICS: usize = 32;
/// How many addresses of a NIC are known: whoever has `NET_ADMIN` in the pod adds as many as it likes, and the map is everybody's.
const MOST_ADDRESSES: usize = 16;

/// The pod has more underlay NICs than one pod may have.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "container {container} has {count} underlay NICs, the eBPF dataplane serves at most {MOST_UNDERLAY_NICS}: use fewer, or the dataplane \"policy\" for this pod"
)]
pub struct TooManyNics {
    /// Its container ID.
    pub container: ContainerId,
    /// How many it has, the new one included.
    pub count: usize,
}

/// Refuses a pod that has more underlay NICs than one pod may have.
pub(super) fn check(pod: &PodRecord) -> Result<(), TooManyNics> {
    let count = pod.nics.iter().filter(|record| record.nic.role == NicRole::Underlay).count();
    if count > MOST_UNDERLAY_NICS {
        return Err(TooManyNics { container: pod.container_id.clone(), count });
    }
    Ok(())
}

/// The entries of all NICs of a pod, by id.
pub(super) fn entries(pod: &PodRecord) -> Vec<(u16, NicEntry)> {
    pod.nics.iter().map(|record| (record.id, entry(pod, record))).collect()
}

const fn default_route(rank: Option<RouteRank>) -> u8 {
    match rank {
        None => DEFAULT_NONE,
        Some(RouteRank::Backup) => DEFAULT_BACKUP,
        Some(RouteRank::Used) => DEFAULT_USED,
    }
}

fn entry(pod: &PodRecord, record: &NicRecord) -> NicEntry {
    let nic = &record.nic;
    let mut entry = NicEntry {
        role: match nic.role {
            NicRole::Cluster => ROLE_CLUSTER,
            NicRole::Underlay => ROLE_UNDERLAY,
            NicRole::NodeLink => ROLE_NODE_LINK,
        },
        exit_mode: if pod.is_underlay() { ExitMode::AsIs } else { ExitMode::Translated } as u8,
        pod: pod.id(),
        exit_nic: pod.cluster_nic().map_or(0, |exit| exit.id),
        profile: pod.profile,
        node_link: pod.nic(NicRole::NodeLink).map_or(0, |link| link.id),
        ifindex: nic.ifindex,
        mtu: nic.mtu,
        mac: nic.mac.0,
        peer_mac: nic.peer_mac.map_or([0; 6], |mac| mac.0),
        refuses_pods: u8::from(pod.refuses_neighbors()),
        default4: default_route(nic.default_routes.v4),
        default6: default_route(nic.default_routes.v6),
        port_low: pod.ports.first,
        port_high: pod.ports.last,
        ..NicEntry::default()
    };
    // The first address of each family.
    for address in nic.addresses.iter().rev() {
        match address.addr() {
            IpAddr::V4(v4) => entry.addr4 = v4.octets(),
            IpAddr::V6(v6) => entry.addr6 = v6.octets(),
        }
    }
    entry
}

/// The addresses by which a NIC of its pod is known, IPAM's first. A node link has none of its own, and link-local ones are of no NIC
/// alone.
pub(super) fn addresses(record: &NicRecord) -> Vec<IpAddr> {
    if record.nic.role == NicRole::NodeLink {
        return Vec::new();
    }
    let all = record.nic.addresses.iter().map(IpNet::addr);
    let own = all.filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()));
    own.take(MOST_ADDRESSES).collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use spiderpool_api::agent::NetnsIdentity;
    use spiderpool_api::agent::dataplane::{DefaultRoutes, Nic};
    use spiderpool_core::dataplane::PortRange;
    use spiderpool_core::names::PodName;

    use super::*;
    use crate::pod_network::PodState;

    fn record(id: u16, name: &str, role: NicRole, addresses: &[&str]) -> NicRecord {
        let nic = Nic {
            name: name.parse().unwrap(),
            role,
            ifindex: u32::from(id) + 10,
            mac: "02:00:00:00:00:01".parse().unwrap(),
            peer_mac: (role == NicRole::Cluster).then(|| "ee:ee:ee:ee:ee:ee".parse().unwrap()),
            mtu: 1450,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            default_routes: DefaultRoutes::default(),
        };
        NicRecord { id, nic }
    }

    fn pod(nics: Vec<NicRecord>) -> PodRecord {
        PodRecord {
            container_id: "c".parse().unwrap(),
            netns: PathBuf::new(),
            netns_identity: NetnsIdentity { dev: 0, inode: 0 },
            pod: PodName::new("ns", "pod").unwrap(),
            pod_uid: None,
            profile: 7,
            ports: PortRange::DEFAULT,
            state: PodState::Attached,
            attachments: vec![],
            nics,
        }
    }

    /// One pod could take everybody's ids, and everybody's room in `addresses`.
    #[test]
    fn a_pod_has_its_share_of_nics_and_addresses() {
        let names: Vec<String> = (1..=33).map(|n| format!("net{n}")).collect();
        let nics = |count: u16| {
            let underlay = (1..=count).zip(&names);
            let underlay = underlay.map(|(n, name)| record(n + 1, name, NicRole::Underlay, &[]));
            std::iter::once(record(1, "eth0", NicRole::Cluster, &[])).chain(underlay).collect()
        };
        assert_eq!(check(&pod(nics(32))), Ok(()));
        let error = check(&pod(nics(33))).unwrap_err();
        assert_eq!(error, TooManyNics { container: "c".parse().unwrap(), count: 33 });
        let many: Vec<String> = (1..=200).map(|n| format!("10.6.0.{n}/16")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let known = addresses(&record(2, "net1", NicRole::Underlay, &many));
        assert_eq!((known.len(), known[0]), (16, "10.6.0.1".parse().unwrap()));
    }

    #[test]
    fn in_underlay_mode_veth0_is_node_link_and_way_to_the_cluster() {
        let pod = pod(vec![
            record(5, "veth0", NicRole::NodeLink, &["169.254.100.1/32"]),
            record(6, "eth0", NicRole::Underlay, &["10.6.0.2/16"]),
        ]);
        let entries = entries(&pod);
        assert!(entries.iter().all(|(_, entry)| (entry.pod, entry.node_link, entry.exit_nic) == (5, 5, 5)));
        assert!(entries.iter().all(|(_, entry)| entry.exit_mode() == ExitMode::AsIs));
        assert_eq!((entries[0].1.role, entries[0].1.addr4), (ROLE_NODE_LINK, [169, 254, 100, 1]));
        assert_eq!(pod.node_link().unwrap().address, Some("169.254.100.1/32".parse().unwrap()));
        assert_eq!(pod.first_nic().map(|first| first.id), Some(6));
    }

    #[test]
    fn every_nic_knows_its_pod() {
        let pod = pod(vec![
            record(5, "eth0", NicRole::Cluster, &["10.244.0.2/32", "10.244.0.3/32", "fd44::2/128"]),
            record(6, "sp0", NicRole::NodeLink, &[]),
            record(8, "net1", NicRole::Underlay, &["10.6.0.2/16", "fe80::2/64"]),
            record(9, "net2", NicRole::Underlay, &["10.7.0.2/16"]),
        ]);
        let entries = entries(&pod);
        assert!(entries.iter().all(|(_, entry)| (entry.pod, entry.node_link, entry.profile) == (5, 6, 7)));
        assert!(
            entries.iter().all(|(_, entry)| (entry.exit_nic, entry.exit_mode()) == (5, ExitMode::Translated))
        );
        let eth0 = entries[0].1;
        assert_eq!((eth0.role, eth0.addr4, eth0.peer_mac), (ROLE_CLUSTER, [10, 244, 0, 2], [0xee; 6]));
        assert_eq!(eth0.addr6[15], 2);
        assert_eq!((entries[2].1.addr4, entries[2].1.ifindex), ([10, 6, 0, 2], 18));
        let of = |index: usize| addresses(&pod.nics[index]);
        let ips = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<IpAddr>>();
        assert_eq!(of(0), ips(&["10.244.0.2", "10.244.0.3", "fd44::2"]));
        assert_eq!((of(1), of(2)), (ips(&[]), ips(&["10.6.0.2"])));
    }
}
