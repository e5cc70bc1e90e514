//! What the programs know of a pod's NICs: the entries of the map `nics`.

use std::net::IpAddr;

use ipnet::IpNet;
use spiderpool_api::agent::dataplane::{NicRole, RouteRank};
use spiderpool_core::names::ContainerId;
use spiderpool_dataplane::{
    DEFAULT_BACKUP, DEFAULT_NONE, DEFAULT_USED, ExitMode, NicEntry, ROLE_CLUSTER, ROLE_NODE_LINK,
    ROLE_UNDERLAY, SIBLINGS,
};
use thiserror::Error;

use crate::pod_network::{NicRecord, PodRecord};

/// The pod has more underlay NICs than the programs can tell apart.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "container {container} has {count} underlay NICs, the eBPF dataplane serves at most {SIBLINGS}: use fewer, or the dataplane \"policy\" for this pod"
)]
pub struct TooManyNics {
    /// Its container ID.
    pub container: ContainerId,
    /// How many it has, the new one included.
    pub count: usize,
}

/// Refuses a pod that has more underlay NICs than an entry can name.
pub(super) fn check(pod: &PodRecord) -> Result<(), TooManyNics> {
    let count = pod.nics.iter().filter(|record| record.nic.role == NicRole::Underlay).count();
    if count > SIBLINGS {
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
    let mut siblings = [0; SIBLINGS];
    let others = pod.nics.iter().filter(|other| other.nic.role == NicRole::Underlay && other.id != record.id);
    for (place, other) in siblings.iter_mut().zip(others) {
        *place = other.id;
    }
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
        siblings,
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

/// The addresses of a NIC beyond the first of each family, which its entry has. Link-local ones are of no NIC alone.
pub(super) fn further_addresses(record: &NicRecord) -> Vec<IpAddr> {
    if record.nic.role == NicRole::NodeLink {
        return Vec::new();
    }
    let of = |v4: bool| {
        let family = record.nic.addresses.iter().map(IpNet::addr).filter(move |ip| ip.is_ipv4() == v4);
        family.skip(1)
    };
    of(true)
        .chain(of(false))
        .filter(|ip| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect()
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

    #[test]
    fn more_underlay_nics_than_an_entry_names_are_refused() {
        let names: Vec<String> = (1..=16).map(|n| format!("net{n}")).collect();
        let nics = |count: u16| {
            let underlay = (1..=count).zip(&names);
            let underlay = underlay.map(|(n, name)| record(n + 1, name, NicRole::Underlay, &[]));
            std::iter::once(record(1, "eth0", NicRole::Cluster, &[])).chain(underlay).collect()
        };
        let most = pod(nics(15));
        assert_eq!(check(&most), Ok(()));
        let siblings = entries(&most)[0].1.siblings;
        assert_eq!(siblings.to_vec(), (2..=16).collect::<Vec<u16>>());
        let error = check(&pod(nics(16))).unwrap_err();
        assert_eq!(error, TooManyNics { container: "c".parse().unwrap(), count: 16 });
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
    fn every_nic_knows_the_others() {
        let pod = pod(vec![
            record(5, "eth0", NicRole::Cluster, &["10.244.0.2/32", "10.244.0.3/32", "fd44::2/128"]),
            record(6, "sp0", NicRole::NodeLink, &[]),
            record(8, "net1", NicRole::Underlay, &["10.6.0.2/16"]),
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
        let further = |index: usize| further_addresses(&pod.nics[index]);
        assert_eq!(further(0), ["10.244.0.3".parse::<IpAddr>().unwrap()]);
        assert!(further(1).is_empty() && further(2).is_empty());
        assert_eq!((eth0.siblings[0], eth0.siblings[1], eth0.siblings[2]), (8, 9, 0));
        let net1 = entries[2].1;
        assert_eq!((net1.siblings[0], net1.siblings[1], net1.ifindex), (9, 0, 18));
    }
}
