//! What upstream's agents have recorded of a pool in its status, and the holdings that it stands for. A record names a pod and
//! its UID; NIC, node and workload are in the pod's SpiderEndpoint, which upstream writes after it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Deserialize;
use spiderpool_core::ipam::{AddressState, Holding, Owner, Pool, Workload, virtual_machine};
use spiderpool_core::names::{IfName, PodIdentity, PodName, PodUid};
use thiserror::Error;

use crate::crd::{EndpointIp, SpiderEndpointStatus};
use crate::pod::Pod;

/// A record of `status.allocatedIPs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamRecord {
    /// The address with the prefix length of the pool's subnet.
    pub address: IpNet,
    /// The pod; of a KubeVirt machine its namespace and its own name.
    pub name: PodName,
    /// The pod's UID.
    pub uid: PodUid,
}

/// `status.allocatedIPs` is not what upstream writes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("status.allocatedIPs is no JSON object of addresses with their pods: {0}")]
pub struct RecordsError(String);

/// A record that stands for no address of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the record of {key:?} in status.allocatedIPs is not imported: {fault}")]
pub struct RecordError {
    /// Its key.
    pub key: String,
    /// What is wrong.
    pub fault: RecordFault,
}

/// What is wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordFault {
    /// No pool gives it out.
    #[error("it is no address in {0}")]
    Address(IpNet),
    /// Nobody can own it.
    #[error("pod {pod:?} with UID {uid:?} is no name of a pod with its UID")]
    Pod {
        /// As written.
        pod: String,
        /// As written.
        uid: String,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Fields {
    pod: String,
    pod_uid: String,
}

/// The records of a pool, in the order of their texts, each with what is wrong with it.
pub fn records(
    allocated: &str,
    pool: &Pool,
) -> Result<Vec<Result<UpstreamRecord, RecordError>>, RecordsError> {
    let fields: Option<BTreeMap<String, Fields>> =
        serde_json::from_str(allocated).map_err(|error| RecordsError(error.to_string()))?;
    let parsed = fields
        .unwrap_or_default()
        .into_iter()
        .map(|(key, fields)| record(&key, fields, pool).map_err(|fault| RecordError { key, fault }));
    Ok(parsed.collect())
}

fn record(key: &str, Fields { pod, pod_uid }: Fields, pool: &Pool) -> Result<UpstreamRecord, RecordFault> {
    let address = key.parse::<IpAddr>().ok().filter(|ip| pool.subnet.contains(ip));
    let address = address.and_then(|ip| pool.with_prefix(ip).ok());
    let address = address.ok_or(RecordFault::Address(pool.subnet))?;
    let name = pod.split_once('/').and_then(|(namespace, name)| PodName::new(namespace, name).ok());
    let named = name.zip(pod_uid.parse().ok());
    let (name, uid) = named.ok_or(RecordFault::Pod { pod, uid: pod_uid })?;
    Ok(UpstreamRecord { address, name, uid })
}

/// Whether an endpoint is that of a virtual machine, by whose name it is called, and not of the machine's pod: upstream has a switch
/// for it.
pub fn is_of_machine(endpoint: &SpiderEndpointStatus, name: &PodName) -> bool {
    endpoint.owner_controller_type == virtual_machine::INSTANCE
        && endpoint.owner_controller_name == name.name()
}

/// What an endpoint has of a pool and no record says: upstream goes on with such an address.
pub fn unrecorded(
    pool: &Pool,
    name: &PodName,
    endpoint: &SpiderEndpointStatus,
    is_recorded: impl Fn(IpAddr) -> bool,
) -> Vec<UpstreamRecord> {
    let Ok(uid) = endpoint.current.uid.parse::<PodUid>() else { return Vec::new() };
    let named = endpoint
        .current
        .ips
        .iter()
        .flat_map(|entry| [(&entry.ipv4, &entry.ipv4_pool), (&entry.ipv6, &entry.ipv6_pool)]);
    let of_pool = named.filter(|(_, of)| of.as_deref() == Some(pool.name.as_str()));
    let addresses = of_pool.filter_map(|(text, _)| text.as_deref()?.parse::<IpNet>().ok());
    let lost = addresses.map(|net| net.addr()).filter(|ip| pool.subnet.contains(ip) && !is_recorded(*ip));
    let records = lost.filter_map(|ip| {
        let address = pool.with_prefix(ip).ok()?;
        Some(UpstreamRecord { address, name: name.clone(), uid: uid.clone() })
    });
    records.collect()
}

impl UpstreamRecord {
    /// What the record stands for. `endpoint` is the one of its name and `pod` the pod with its UID, where there are such. The NIC of an
    /// address whose endpoint was not written is eth0: one request takes those of all NICs, most pods have this one alone.
    pub fn holding(
        &self,
        pool: &Pool,
        endpoint: Option<&SpiderEndpointStatus>,
        pod: Option<&Pod>,
    ) -> Holding {
        let endpoint = endpoint.filter(|endpoint| endpoint.current.uid == self.uid.as_str());
        let identity = PodIdentity { name: self.name.clone(), uid: self.uid.clone() };
        let workload = endpoint.filter(|endpoint| !endpoint.owner_controller_type.is_empty());
        let workload = workload.map(|endpoint| Workload {
            kind: endpoint.owner_controller_type.as_str().into(),
            name: endpoint.owner_controller_name.as_str().into(),
        });
        // Its endpoint, as the record, has the machine's name.
        let is_machines = endpoint.is_some_and(|endpoint| is_of_machine(endpoint, &self.name));
        let virtual_machine = is_machines.then(|| self.name.name().into());
        let node = endpoint.and_then(|endpoint| endpoint.current.node.parse().ok());
        let named = endpoint.and_then(|endpoint| self.nic(&endpoint.current.ips));
        let nic = named.and_then(|name| name.parse().ok());
        Holding {
            address: self.address,
            pool: pool.name.clone(),
            nic: nic.unwrap_or_else(IfName::eth0),
            owner: Arc::new(Owner {
                pod: pod.map_or(identity, |pod| pod.identity.clone()),
                workload,
                virtual_machine,
            }),
            node: pod.and_then(|pod| pod.node.clone()).or(node),
            container_id: None,
            is_detached: false,
            network: None,
            grace: pod.map(|pod| pod.grace),
            state: AddressState::Bound,
            quarantine: None,
        }
    }

    /// The NIC of the entry with the address. An entry without one is that of a NIC whose ADD has not come yet: such entries
    /// are in the order of the pod's networks, which Multus calls `net1`, `net2`, ...
    fn nic(&self, entries: &[EndpointIp]) -> Option<String> {
        let has_it = |text: &Option<String>| {
            let address = text.as_deref().and_then(|text| text.parse::<IpNet>().ok());
            address.is_some_and(|address| address.addr() == self.address.addr())
        };
        let place = entries.iter().position(|entry| has_it(&entry.ipv4) || has_it(&entry.ipv6))?;
        match entries[place].interface.as_str() {
            "" if place == 0 => None,
            "" => Some(format!("net{place}")),
            name => Some(name.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spiderpool_core::ipam::PoolFields;

    use super::*;
    use crate::pod::PodObject;

    fn pool(subnet: &str) -> Pool {
        Pool::parse(&PoolFields { name: "p", subnet, ..PoolFields::default() }).unwrap()
    }

    fn only(allocated: &Value, subnet: &str) -> Result<UpstreamRecord, RecordError> {
        let mut records = records(&allocated.to_string(), &pool(subnet)).unwrap();
        assert_eq!(records.len(), 1);
        records.remove(0)
    }

    fn status(uid: &str, ips: &Value) -> SpiderEndpointStatus {
        let current = json!({"uid": uid, "node": "n1", "ips": ips});
        let status = json!({
            "current": current, "ownerControllerType": "Deployment", "ownerControllerName": "web",
        });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_record_with_its_endpoint_says_all_that_a_holding_does() {
        let record = only(&json!({"10.6.0.9": {"pod": "ns1/web-1", "podUid": "u"}}), "10.6.0.0/16").unwrap();
        let ips = json!([
            {"interface": "eth0", "ipv4": "10.7.0.9/16", "ipv4Pool": "q", "vlan": 0},
            {"interface": "net1", "ipv4": "10.6.0.9/16", "ipv4Pool": "p", "vlan": 0},
        ]);
        let holding = record.holding(&pool("10.6.0.0/16"), Some(&status("u", &ips)), None);
        assert_eq!(holding.address.to_string(), "10.6.0.9/16");
        assert_eq!((holding.nic.as_str(), holding.node.unwrap().as_str()), ("net1", "n1"));
        assert_eq!(holding.owner.pod.to_string(), "ns1/web-1");
        let workload = holding.owner.workload.as_ref().unwrap();
        assert_eq!((&*workload.kind, &*workload.name), ("Deployment", "web"));
        // The endpoint is a later pod's.
        let other = record.holding(&pool("10.6.0.0/16"), Some(&status("v", &ips)), None);
        assert_eq!((other.nic.as_str(), other.node, &other.owner.workload), ("eth0", None, &None));
    }

    #[test]
    fn a_nic_that_is_not_named_yet_has_the_name_that_multus_gives_it() {
        let record = only(&json!({"fd00::9": {"pod": "ns1/web", "podUid": "u"}}), "fd00::/64").unwrap();
        let nic = |ips: Value| {
            let holding = record.holding(&pool("fd00::/64"), Some(&status("u", &ips)), None);
            holding.nic.as_str().to_owned()
        };
        let first = json!({"interface": "eth0", "ipv6": "fd00::8/64", "ipv6Pool": "q"});
        let unnamed = json!({"interface": "", "ipv6": "fd00::9/64", "ipv6Pool": "p"});
        assert_eq!(nic(json!([first, unnamed])), "net1");
        assert_eq!(nic(json!([first, first, unnamed])), "net2");
        assert_eq!(nic(json!([unnamed])), "eth0");
        assert_eq!(nic(json!([])), "eth0");
    }

    #[test]
    fn what_an_endpoint_alone_says_is_in_use_too() {
        let name = PodName::new("ns1", "web").unwrap();
        let ips = json!([
            {"interface": "eth0", "ipv4": "10.6.0.9/16", "ipv4Pool": "p", "vlan": 0},
            {"interface": "net1", "ipv4": "10.6.0.8/16", "ipv4Pool": "q", "vlan": 0},
            {"interface": "net2", "ipv4": "10.7.0.9/16", "ipv4Pool": "p", "vlan": 0},
        ]);
        let found = |is_recorded: bool| {
            let status = status("u", &ips);
            unrecorded(&pool("10.6.0.0/16"), &name, &status, |_| is_recorded)
        };
        let address = "10.6.0.9/16".parse().unwrap();
        assert_eq!(found(false), [UpstreamRecord { address, name: name.clone(), uid: "u".parse().unwrap() }]);
        assert_eq!(found(true), []);
    }

    /// The machine has the record, its present pod the address.
    #[test]
    fn the_pod_itself_knows_better() {
        let record = only(&json!({"10.6.0.9": {"pod": "ns1/vm", "podUid": "u"}}), "10.6.0.0/16").unwrap();
        let object = json!({
            "metadata": {"namespace": "ns1", "name": "virt-launcher-vm-x", "uid": "u"},
            "spec": {"nodeName": "n2", "terminationGracePeriodSeconds": 7},
        });
        let pod = Pod::try_from(serde_json::from_value::<PodObject>(object).unwrap()).unwrap();
        let mut endpoint = status("u", &json!([]));
        endpoint.owner_controller_type = "VirtualMachineInstance".to_owned();
        endpoint.owner_controller_name = "vm".to_owned();
        let holding = record.holding(&pool("10.6.0.0/16"), Some(&endpoint), Some(&pod));
        assert_eq!(holding.owner.pod.to_string(), "ns1/virt-launcher-vm-x");
        assert_eq!(holding.owner.virtual_machine.as_deref(), Some("vm"));
        // Without the switch for machines upstream names the pod.
        endpoint.owner_controller_name = "other".to_owned();
        let holding = record.holding(&pool("10.6.0.0/16"), Some(&endpoint), Some(&pod));
        assert_eq!(holding.owner.virtual_machine, None);
        assert_eq!(holding.node.unwrap().as_str(), "n2");
        assert_eq!(holding.grace.unwrap().as_secs(), 7);
    }

    #[test]
    fn what_is_no_record_is_named() {
        let fault = |allocated: Value| only(&allocated, "10.6.0.0/16").unwrap_err().to_string();
        let whole = json!({"pod": "ns1/web", "podUid": "u"});
        for key in ["10.7.0.9", "10.6.0.9/16", "fd00::9", "web"] {
            let text = fault(json!({key: whole}));
            assert!(text.contains("it is no address in 10.6.0.0/16") && text.contains(key), "{text}");
        }
        for (pod, uid) in [("web", "u"), ("/web", "u"), ("ns1/", "u"), ("ns1/web", ""), ("", "")] {
            let text = fault(json!({"10.6.0.9": {"pod": pod, "podUid": uid}}));
            assert!(text.contains("is no name of a pod with its UID"), "{text}");
        }
        assert!(records("{\"cut", &pool("10.6.0.0/16")).unwrap_err().to_string().contains("allocatedIPs"));
        for empty in ["null", "{}"] {
            assert_eq!(records(empty, &pool("10.6.0.0/16")), Ok(vec![]));
        }
    }
}
