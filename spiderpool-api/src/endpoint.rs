//! A pod's SpiderEndpoint, from what the pod holds. Agent and controller write the same one.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::core::ObjectMeta;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::DefaultRoute;
use spiderpool_core::ipam::response::{NicRoute, RouteOrigin};
use spiderpool_core::ipam::virtual_machine;
use spiderpool_core::ipam::{
    AddressState, Allocated, Holding, Owner, PodAnnotations, Pool, Response, Workload, build_response,
};
use spiderpool_core::names::{PodIdentity, PodName, PodUid, PoolName};

use crate::annotations::{ENDPOINT_POD, KEPT_ADDRESSES};
use crate::crd::{
    EndpointAllocation, EndpointIp, FINALIZER, NoSpec, Route as CrdRoute, SpiderEndpoint,
    SpiderEndpointStatus,
};
use crate::pod::Pod;

/// How long an endpoint stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until its pod is gone, which owns it.
    Pod,
    /// Until no other pod will come that is to have the addresses: it names those that are kept for it.
    Name,
}

/// What an endpoint should say of some NICs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    lifetime: Lifetime,
    /// The endpoint's.
    name: PodName,
    pod: PodIdentity,
    /// Whether it is a virtual machine's, and not the pod's alone.
    of_machine: bool,
    /// The UID of the pod's object, which is not that of a static pod.
    object_uid: String,
    status: SpiderEndpointStatus,
}

impl Record {
    /// For a pod that has its addresses as this owner.
    pub fn new(pod: &Pod, owner: &Owner, ips: Vec<EndpointIp>, lifetime: Lifetime) -> Self {
        let node = pod.node.as_ref().map(ToString::to_string).unwrap_or_default();
        let object_uid = pod.object_uid.clone();
        Self { object_uid, ..Self::of(owner, &node, ips, lifetime) }
    }

    /// For what a pod that has ended leaves to the next one of its name; `node` is the node that may write it, or none.
    pub fn kept<H: AsRef<Holding>>(owner: &Owner, node: &str, kept: &[H]) -> Self {
        Self::of(owner, node, with_kept(Vec::new(), kept), Lifetime::Name)
    }

    fn of(owner: &Owner, node: &str, ips: Vec<EndpointIp>, lifetime: Lifetime) -> Self {
        let workload = owner.workload.as_ref();
        Self {
            lifetime,
            name: owner.endpoint_name(),
            pod: owner.pod.clone(),
            of_machine: owner.virtual_machine.is_some(),
            object_uid: owner.pod.uid.to_string(),
            status: SpiderEndpointStatus {
                current: EndpointAllocation { uid: owner.pod.uid.to_string(), node: node.to_owned(), ips },
                owner_controller_type: workload.map(|top| top.kind.to_string()).unwrap_or_default(),
                owner_controller_name: workload.map(|top| top.name.to_string()).unwrap_or_default(),
            },
        }
    }

    /// How long the endpoint stays.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// The endpoint's name.
    pub fn name(&self) -> &PodName {
        &self.name
    }

    /// The pod.
    pub fn pod(&self) -> &PodIdentity {
        &self.pod
    }

    /// Whether the endpoint of this name is another one's that the record may neither replace nor remove: a virtual machine's
    /// where this is a pod's, or the other way round.
    pub fn is_barred_by(&self, found: &SpiderEndpoint) -> bool {
        is_of_other_kind(found, &self.pod.uid, self.of_machine)
    }

    /// With what a newer record says of further NICs. One of another pod replaces it.
    #[must_use]
    pub fn joined_by(self, mut newer: Self) -> Self {
        if self.pod == newer.pod {
            newer.status.current.ips = merge(self.status.current.ips, &newer.status.current.ips);
        }
        newer
    }

    /// Without what it says of these addresses.
    #[must_use]
    pub fn without(mut self, freed: &[Holding]) -> Self {
        self.status.current.ips = without(self.status.current.ips, freed);
        self
    }

    /// The object to create.
    pub fn object(&self) -> SpiderEndpoint {
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.pod.name.name().to_owned(),
            uid: self.object_uid.clone(),
            controller: None,
            block_owner_deletion: None,
        };
        let mut metadata = ObjectMeta {
            name: Some(self.name.name().to_owned()),
            namespace: Some(self.name.namespace().to_owned()),
            finalizers: Some(vec![FINALIZER.to_owned()]),
            owner_references: (self.lifetime == Lifetime::Pod).then(|| vec![owner]),
            ..ObjectMeta::default()
        };
        name_pod(&mut metadata, &self.pod.name);
        SpiderEndpoint { metadata, spec: NoSpec {}, status: Some(self.status.clone()) }
    }

    /// What to write over the endpoint that is there, if it is the same pod's: it keeps what this record does not
    /// speak of. `None`: it says it all already.
    pub fn over(&self, found: &SpiderEndpoint, known: &SpiderEndpointStatus) -> Option<SpiderEndpoint> {
        let mut wanted = self.object();
        if let Some(status) = &mut wanted.status {
            status.current.ips = merge(known.current.ips.clone(), &status.current.ips);
        }
        let waiting = self.still_waiting(annotated(found));
        let desired = SpiderEndpoint { metadata: self.metadata(found, &waiting), ..wanted };
        (desired != *found).then_some(desired)
    }

    /// What to write over the endpoint of an earlier pod of the name: what that has left for NICs that this record does not
    /// speak of goes on waiting.
    pub fn after(&self, found: &SpiderEndpoint) -> SpiderEndpoint {
        let waiting = self.still_waiting(waiting_for(found, &self.pod.uid));
        SpiderEndpoint { metadata: self.metadata(found, &waiting), ..self.object() }
    }

    fn still_waiting(&self, mut waiting: Vec<EndpointIp>) -> Vec<EndpointIp> {
        let spoken_of =
            |entry: &EndpointIp| self.status.current.ips.iter().any(|ip| ip.interface == entry.interface);
        waiting.retain(|entry| !spoken_of(entry));
        waiting
    }

    fn metadata(&self, found: &SpiderEndpoint, waiting: &[EndpointIp]) -> ObjectMeta {
        let mut metadata = found.metadata.clone();
        if self.lifetime == Lifetime::Name {
            metadata.owner_references = None;
        }
        annotate(&mut metadata, waiting);
        name_pod(&mut metadata, &self.pod.name);
        metadata
    }
}

/// What to write over the endpoint of a pod that has ended and leaves `kept` to the next one of its name, on whatever
/// node. `None`: it says so already, or is that one's. One that no node holds is taken: what it names waits, too.
pub fn handed_on<H: AsRef<Holding>>(
    found: &SpiderEndpoint,
    pod: &PodIdentity,
    kept: &[H],
) -> Option<SpiderEndpoint> {
    let is_of_pod = |status: &&SpiderEndpointStatus| {
        status.current.uid == pod.uid.as_str() || status.current.node.is_empty()
    };
    let known = found.status.as_ref().filter(is_of_pod)?;
    let ips = with_kept(known.current.ips.clone(), kept);
    let current = EndpointAllocation { uid: pod.uid.to_string(), node: String::new(), ips };
    let mut metadata = ObjectMeta { owner_references: None, ..found.metadata.clone() };
    name_pod(&mut metadata, &pod.name);
    let desired = SpiderEndpoint {
        metadata,
        spec: NoSpec {},
        status: Some(SpiderEndpointStatus { current, ..known.clone() }),
    };
    (desired != *found).then_some(desired)
}

/// Entries that name these addresses, too. An entry that names another one for a NIC and family, which is not kept, gets the
/// one that is.
fn with_kept<H: AsRef<Holding>>(mut ips: Vec<EndpointIp>, kept: &[H]) -> Vec<EndpointIp> {
    for named in restore(kept, &PodAnnotations::default(), |_| None) {
        let Some(entry) = ips.iter_mut().find(|entry| entry.interface == named.interface) else {
            ips.push(named);
            continue;
        };
        let is_kept = |text: &Option<String>| {
            let address = text.as_deref().and_then(|text| text.parse::<ipnet::IpNet>().ok());
            address.is_some_and(|address| kept.iter().any(|one| one.as_ref().address == address))
        };
        if named.ipv4.is_some() && !is_kept(&entry.ipv4) {
            (entry.ipv4, entry.ipv4_pool, entry.ipv4_gateway) = (named.ipv4, named.ipv4_pool, None);
        }
        if named.ipv6.is_some() && !is_kept(&entry.ipv6) {
            (entry.ipv6, entry.ipv6_pool, entry.ipv6_gateway) = (named.ipv6, named.ipv6_pool, None);
        }
    }
    ips
}

/// Whether the endpoint is another pod's.
pub fn is_of_another(found: &SpiderEndpoint, pod: &PodUid) -> bool {
    found.status.as_ref().is_some_and(|status| status.current.uid != pod.as_str())
}

/// Whether another pod holds what the endpoint names, on some node: nothing of it waits yet.
pub fn is_held_by_another(found: &SpiderEndpoint, pod: &PodUid) -> bool {
    let has_node = |status: &SpiderEndpointStatus| !status.current.node.is_empty();
    is_of_another(found, pod) && found.status.as_ref().is_some_and(has_node)
}

/// The entries that wait for this pod: those of an earlier one of its name that no node holds, and what was left of them when
/// this pod's first NICs were written.
pub fn waiting_for(found: &SpiderEndpoint, pod: &PodUid) -> Vec<EndpointIp> {
    let status = found.status.iter().filter(|status| status.current.uid != pod.as_str());
    let of_earlier = status.flat_map(|status| status.current.ips.clone());
    of_earlier.chain(annotated(found)).collect()
}

/// The entries of the annotation. One that somebody has written into it and that does not parse is not there.
fn annotated(found: &SpiderEndpoint) -> Vec<EndpointIp> {
    let annotations = found.metadata.annotations.as_ref();
    let text = annotations.and_then(|annotations| annotations.get(KEPT_ADDRESSES));
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// Whether the endpoint is a virtual machine's: ours then names its pod, and upstream's has the name of its owner.
pub fn is_of_machine(found: &SpiderEndpoint) -> bool {
    let mut annotations = found.metadata.annotations.iter();
    let names_pod = annotations.any(|annotations| annotations.contains_key(ENDPOINT_POD));
    let has_owners_name = found.status.as_ref().is_some_and(|status| {
        status.owner_controller_type == virtual_machine::INSTANCE
            && found.metadata.name.as_ref() == Some(&status.owner_controller_name)
    });
    names_pod || has_owners_name
}

/// Whether the endpoint is not this pod's, and a virtual machine's where the pod's is none (`of_machine`), or the other way
/// round. Whoever may create pods may give one the name of a machine.
pub fn is_of_other_kind(found: &SpiderEndpoint, pod: &PodUid, of_machine: bool) -> bool {
    is_of_another(found, pod) && is_of_machine(found) != of_machine
}

/// The pod whose endpoint this is, by the endpoint's metadata; `None` if that makes no sense.
pub fn pod_name(meta: &ObjectMeta) -> Option<PodName> {
    let annotations = meta.annotations.as_ref();
    let named = annotations.and_then(|annotations| annotations.get(ENDPOINT_POD)).or(meta.name.as_ref());
    PodName::new(meta.namespace.as_deref()?, named?.as_str()).ok()
}

/// The same with the name of its pod, if that is not the endpoint's.
fn name_pod(meta: &mut ObjectMeta, pod: &PodName) {
    let is_endpoints = meta.name.as_deref() == Some(pod.name());
    let annotations = meta.annotations.get_or_insert_default();
    if is_endpoints {
        annotations.remove(ENDPOINT_POD);
    } else {
        annotations.insert(ENDPOINT_POD.to_owned(), pod.name().to_owned());
    }
    if annotations.is_empty() {
        meta.annotations = None;
    }
}

/// The same with these entries in the annotation.
fn annotate(meta: &mut ObjectMeta, waiting: &[EndpointIp]) {
    let annotations = meta.annotations.get_or_insert_default();
    annotations.remove(KEPT_ADDRESSES);
    if !waiting.is_empty() {
        annotations.extend(serde_json::to_string(waiting).ok().map(|text| (KEPT_ADDRESSES.to_owned(), text)));
    }
    if annotations.is_empty() {
        meta.annotations = None;
    }
}

/// What is left of an endpoint when nobody claims these addresses of an earlier pod any more: `None` if it says nothing else
/// and is that pod's.
pub fn unclaimed(mut found: SpiderEndpoint, freed: &[Holding]) -> Option<SpiderEndpoint> {
    let waiting = without(annotated(&found), freed);
    annotate(&mut found.metadata, &waiting);
    let status = found.status.as_mut()?;
    let of_status = |holding: &&Holding| holding.owner.pod.uid.as_str() == status.current.uid;
    let freed: Vec<Holding> = freed.iter().filter(of_status).cloned().collect();
    let is_of_ended = !freed.is_empty();
    status.current.ips = without(std::mem::take(&mut status.current.ips), &freed);
    let is_over = is_of_ended && status.current.ips.is_empty() && waiting.is_empty();
    (!is_over).then_some(found)
}

/// The entries of a pod's endpoint, from what the pod holds; `find_pool` gives what is known of a pool.
pub fn restore<H: AsRef<Holding>>(
    holdings: impl IntoIterator<Item = H>,
    annotations: &PodAnnotations,
    find_pool: impl Fn(&PoolName) -> Option<Arc<Pool>>,
) -> Vec<EndpointIp> {
    let mut allocated: Vec<Allocated> = Vec::new();
    for holding in holdings {
        let Holding { nic, pool, address, is_detached, .. } = holding.as_ref();
        // The next ADD says it, if one follows.
        if *is_detached {
            continue;
        }
        let family = Family::of_net(address);
        // Two for one NIC and family: only the next ADD knows which one stays.
        if allocated.iter().any(|other| other.nic == *nic && Family::of_net(&other.address) == family) {
            continue;
        }
        let found = find_pool(pool);
        let named = annotations.ippools.iter().flatten().find(|entry| entry.nic == *nic);
        allocated.push(Allocated {
            default_route: named.map_or(DefaultRoute::Keep, |entry| entry.default_route),
            nic: nic.clone(),
            address: *address,
            pool: pool.clone(),
            gateway: found.as_ref().and_then(|pool| pool.gateway),
            routes: found.map(|pool| pool.routes.clone()).unwrap_or_default(),
        });
    }
    endpoint_ips(&build_response(allocated, &annotations.routes))
}

/// The addresses that the endpoint `name` of a running pod names and whose objects were lost: the pod holds none for that NIC
/// and family. `held` is what it holds, in whatever state. The sandbox, the network's name and the grace
/// period are lost with the object.
pub fn lost_holdings<H: AsRef<Holding>>(
    name: &PodName,
    endpoint: &SpiderEndpointStatus,
    pod: &PodIdentity,
    held: impl IntoIterator<Item = H>,
) -> Vec<Holding> {
    let held: Vec<H> = held.into_iter().collect();
    let SpiderEndpointStatus { current, owner_controller_type, owner_controller_name } = endpoint;
    let workload = (!owner_controller_type.is_empty()).then(|| Workload {
        kind: owner_controller_type.as_str().into(),
        name: owner_controller_name.as_str().into(),
    });
    let virtual_machine = (*name != pod.name).then(|| name.name().into());
    let owner = Arc::new(Owner { pod: pod.clone(), workload, virtual_machine });
    let named = current.ips.iter().flat_map(|ip| {
        let both = [(&ip.ipv4, &ip.ipv4_pool), (&ip.ipv6, &ip.ipv6_pool)];
        both.into_iter().filter_map(|(address, pool)| {
            Some(Holding {
                address: address.as_ref()?.parse().ok()?,
                pool: pool.as_ref()?.parse().ok()?,
                nic: ip.interface.parse().ok()?,
                owner: Arc::clone(&owner),
                node: current.node.parse().ok(),
                container_id: None,
                is_detached: false,
                network: None,
                grace: None,
                state: AddressState::Bound,
                quarantine: None,
            })
        })
    });
    let is_held = |lost: &Holding| {
        held.iter().map(AsRef::as_ref).any(|held| held.nic == lost.nic && held.family() == lost.family())
    };
    named.filter(|named| !is_held(named)).collect()
}

/// Whether an endpoint lacks an address that it should name.
pub fn lacks(known: &[EndpointIp], wanted: &[EndpointIp]) -> bool {
    wanted.iter().any(|entry| {
        let same = known.iter().find(|known| known.interface == entry.interface);
        same.is_none_or(|known| (&known.ipv4, &known.ipv6) != (&entry.ipv4, &entry.ipv6))
    })
}

/// The endpoint's entries, one per NIC in the order of the addresses. An entry with a gateway has the default route.
pub fn endpoint_ips(response: &Response) -> Vec<EndpointIp> {
    let mut entries: Vec<EndpointIp> = Vec::new();
    for allocated in &response.addresses {
        let name = allocated.nic.as_str();
        let place = entries.iter().position(|entry| entry.interface == name).unwrap_or_else(|| {
            entries.push(EndpointIp { interface: name.to_owned(), ..EndpointIp::default() });
            entries.len() - 1
        });
        add(&mut entries[place], allocated);
    }
    for NicRoute { nic, route, origin } in &response.routes {
        let entry = entries.iter_mut().find(|entry| entry.interface == nic.as_str());
        if let Some(entry) = entry.filter(|_| *origin == RouteOrigin::Listed) {
            entry.routes.push(CrdRoute { dst: route.dst.to_string(), gw: route.gw.to_string() });
        }
    }
    entries
}

fn add(entry: &mut EndpointIp, allocated: &Allocated) {
    let (address, pool) = (Some(allocated.address.to_string()), Some(allocated.pool.to_string()));
    let gateway = allocated.gateway.map(|gateway| gateway.to_string());
    if gateway.is_some() && entry.clean_gateway.is_none() {
        entry.clean_gateway = Some(allocated.default_route == DefaultRoute::Clean);
    }
    match Family::of_net(&allocated.address) {
        Family::V4 => (entry.ipv4, entry.ipv4_pool, entry.ipv4_gateway) = (address, pool, gateway),
        Family::V6 => (entry.ipv6, entry.ipv6_pool, entry.ipv6_gateway) = (address, pool, gateway),
    }
}

/// Entries of an endpoint after an ADD that spoke of some of its NICs.
pub fn merge(mut known: Vec<EndpointIp>, new: &[EndpointIp]) -> Vec<EndpointIp> {
    for entry in new {
        match known.iter_mut().find(|old| old.interface == entry.interface) {
            Some(old) => old.clone_from(entry),
            None => known.push(entry.clone()),
        }
    }
    known
}

/// Entries of an endpoint without these addresses.
pub fn without(mut known: Vec<EndpointIp>, freed: &[Holding]) -> Vec<EndpointIp> {
    for Holding { nic, address, .. } in freed {
        for entry in known.iter_mut().filter(|entry| entry.interface == nic.as_str()) {
            let named = match Family::of_net(address) {
                Family::V4 => (&mut entry.ipv4, &mut entry.ipv4_pool, &mut entry.ipv4_gateway),
                Family::V6 => (&mut entry.ipv6, &mut entry.ipv6_pool, &mut entry.ipv6_gateway),
            };
            if named.0.as_deref().and_then(|text| text.parse().ok()) == Some(*address) {
                (*named.0, *named.1, *named.2) = (None, None, None);
            }
        }
    }
    known.retain(|entry| entry.ipv4.is_some() || entry.ipv6.is_some());
    known
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spiderpool_core::ipam::PoolFields;
    use spiderpool_core::ipam::address_name::object_name;

    use super::*;
    use crate::crd::SpiderIPAddress;
    use crate::pod::PodObject;

    fn allocated(nic: &str, address: &str, gateway: Option<&str>, default_route: DefaultRoute) -> Allocated {
        Allocated {
            nic: nic.parse().unwrap(),
            address: address.parse().unwrap(),
            pool: "p".parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            routes: vec![],
            default_route,
        }
    }

    #[test]
    fn both_families_of_a_nic_share_an_entry() {
        let addresses = vec![
            allocated("eth0", "10.6.0.9/16", Some("10.6.0.1"), DefaultRoute::Keep),
            allocated("net1", "10.7.0.9/16", None, DefaultRoute::Keep),
            allocated("eth0", "fd00::9/64", Some("fd00::1"), DefaultRoute::Keep),
        ];
        let entries = endpoint_ips(&build_response(addresses, &[]));
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].ipv4.as_deref(), Some("10.6.0.9/16"));
        assert_eq!(entries[0].ipv6_gateway.as_deref(), Some("fd00::1"));
        assert_eq!((entries[0].clean_gateway, entries[1].clean_gateway), (Some(false), None));
    }

    #[test]
    fn a_later_nic_joins_the_entry_of_the_first() {
        let entries = |nic: &str, address: &str| {
            endpoint_ips(&build_response(vec![allocated(nic, address, None, DefaultRoute::Keep)], &[]))
        };
        let (first, second) = (entries("eth0", "10.6.0.9/16"), entries("net1", "10.7.0.9/16"));
        let both = merge(first, &second);
        assert_eq!(both.len(), 2);
        assert_eq!(merge(both.clone(), &second), both);
    }

    fn record(uid: &str, nics: &[&str]) -> Record {
        let ips = nics.iter().map(|nic| EndpointIp { interface: (*nic).to_owned(), ..EndpointIp::default() });
        let object = json!({"metadata": {"namespace": "n", "name": "p", "uid": uid}});
        let pod = Pod::try_from(serde_json::from_value::<PodObject>(object).unwrap()).unwrap();
        let workload = Some(Workload { kind: "Pod".into(), name: "p".into() });
        let owner = Owner { pod: pod.identity.clone(), workload, virtual_machine: None };
        Record::new(&pod, &owner, ips.collect(), Lifetime::Pod)
    }

    #[test]
    fn a_pod_and_a_virtual_machine_of_one_name_do_not_share_an_endpoint() {
        let pods = record("u", &["eth0"]);
        let name = PodName::new("n", "virt-launcher-p-x").unwrap();
        let pod = PodIdentity { name, uid: "v".parse().unwrap() };
        let workload = Some(Workload { kind: "VirtualMachineInstance".into(), name: "p".into() });
        let owner = Owner { pod, workload, virtual_machine: Some("p".into()) };
        let machines = Record::kept::<Holding>(&owner, "", &[]);
        let mut upstreams = machines.object();
        upstreams.metadata.annotations = None;
        assert!(!is_of_machine(&pods.object()) && is_of_machine(&machines.object()));
        assert!(is_of_machine(&upstreams));
        assert!(machines.is_barred_by(&pods.object()));
        for found in [machines.object(), upstreams] {
            assert!(pods.is_barred_by(&found) && !machines.is_barred_by(&found));
        }
        assert!(!record("w", &["eth0"]).is_barred_by(&pods.object()), "of an earlier pod");
        // What a pod says of its owner does not make it a machine's.
        let forged = PodIdentity { name: PodName::new("n", "p").unwrap(), uid: "f".parse().unwrap() };
        let forged = Owner { pod: forged, virtual_machine: None, ..owner };
        assert!(Record::kept::<Holding>(&forged, "", &[]).is_barred_by(&machines.object()));
    }

    fn nics(record: &Record) -> Vec<&str> {
        record.status.current.ips.iter().map(|ip| ip.interface.as_str()).collect()
    }

    #[test]
    fn a_write_that_failed_joins_what_came_meanwhile() {
        let joined = record("u", &["eth0", "net1"]).joined_by(record("u", &["net2"]));
        assert_eq!(nics(&joined), ["eth0", "net1", "net2"]);
    }

    #[test]
    fn only_another_pod_replaces() {
        let joined = record("old", &["eth0"]).joined_by(record("new", &["net1"]));
        assert_eq!((joined.pod().uid.as_str(), nics(&joined)), ("new", vec!["net1"]));
    }

    #[test]
    fn an_endpoint_is_restored_from_addresses() {
        let pool = Pool::parse(&PoolFields {
            name: "p",
            subnet: "10.6.0.0/16",
            gateway: Some("10.6.0.1"),
            routes: vec![("192.0.2.0/24", "10.6.0.2")],
            ..PoolFields::default()
        });
        let pool = Arc::new(pool.unwrap());
        let held = |nic: &str, address: &str| {
            let address: ipnet::IpNet = address.parse().unwrap();
            let spec = json!({
                "address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": "u",
            });
            let name = object_name(address.addr());
            let object = json!({"metadata": {"name": name}, "spec": spec});
            Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
        };
        let ips = restore(
            [held("net1", "10.6.0.9/16"), held("net1", "10.6.0.10/16"), held("net1", "fd00::9/64")],
            &PodAnnotations::default(),
            |name| (name.as_str() == "p").then(|| Arc::clone(&pool)),
        );
        assert_eq!(ips.len(), 1);
        assert_eq!(
            (ips[0].ipv4.as_deref(), ips[0].ipv6.as_deref()),
            (Some("10.6.0.9/16"), Some("fd00::9/64"))
        );
        assert_eq!(ips[0].ipv4_gateway.as_deref(), Some("10.6.0.1"));
        assert!(lacks(&[], &ips) && !lacks(&ips, &ips));
    }

    #[test]
    fn what_an_endpoint_says_is_not_written_again() {
        let mut found = record("u", &["eth0", "net1"]).object();
        found.metadata.resource_version = Some("7".into());
        let known = found.status.clone().unwrap();
        assert_eq!(record("u", &["net1"]).over(&found, &known), None);
        let more = record("u", &["net2"]).over(&found, &known).unwrap();
        assert_eq!(more.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(more.status.unwrap().current.ips.len(), 3);
    }

    #[test]
    fn an_address_that_is_about_to_be_freed_leaves_the_endpoint_of_a_pod_that_goes_on() {
        let all = endpoint_ips(&build_response(
            vec![
                allocated("eth0", "10.6.0.9/16", None, DefaultRoute::Keep),
                allocated("net1", "10.7.0.9/16", Some("10.7.0.1"), DefaultRoute::Keep),
                allocated("net1", "fd00::9/64", None, DefaultRoute::Keep),
            ],
            &[],
        ));
        let freed = |nic: &str, address: &str| {
            let spec = json!({"address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": "u"});
            let name = object_name(address.parse::<ipnet::IpNet>().unwrap().addr());
            let object = json!({"metadata": {"name": name}, "spec": spec});
            Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
        };
        let (v4, v6) = (freed("net1", "10.7.0.9/16"), freed("net1", "fd00::9/64"));
        let left = without(all.clone(), std::slice::from_ref(&v4));
        assert_eq!((left.len(), &left[1].ipv4, &left[1].ipv4_gateway), (2, &None, &None));
        assert_eq!(left[1].ipv6.as_deref(), Some("fd00::9/64"));
        assert_eq!(without(left, &[v6])[..], all[..1]);
        assert_eq!(without(all.clone(), &[freed("net1", "10.7.0.8/16")]), all, "it names another one");
    }

    #[test]
    fn what_an_endpoint_names_and_its_pod_does_not_hold_is_lost() {
        let status: SpiderEndpointStatus = serde_json::from_value(json!({
            "current": {"uid": "u", "node": "n1", "ips": [
                {"interface": "net1", "ipv4": "10.6.0.2/16", "ipv4Pool": "p4", "ipv6": "fd00::2/64", "ipv6Pool": "p6"},
                {"interface": "net2", "ipv4": "not an address", "ipv4Pool": "p4"},
            ]},
            "ownerControllerType": "Deployment", "ownerControllerName": "web",
        }))
        .unwrap();
        let pod = PodIdentity { name: PodName::new("ns", "web-1").unwrap(), uid: "u".parse().unwrap() };
        let lost = lost_holdings(&pod.name, &status, &pod, Vec::<Holding>::new());
        let texts: Vec<_> =
            lost.iter().map(|lost| format!("{} {} {}", lost.address, lost.pool, lost.nic)).collect();
        assert_eq!(texts, ["10.6.0.2/16 p4 net1", "fd00::2/64 p6 net1"]);
        assert_eq!((&lost[0].owner.pod, lost[0].node.as_ref().unwrap().as_str()), (&pod, "n1"));
        assert_eq!(&*lost[0].owner.workload.as_ref().unwrap().kind, "Deployment");
        // The next ADD gave another one, and the endpoint is about to be written.
        let other = Holding { address: "10.6.0.9/16".parse().unwrap(), ..lost[0].clone() };
        assert_eq!(lost_holdings(&pod.name, &status, &pod, [&other]), [lost[1].clone()]);
        assert_eq!(lost_holdings(&pod.name, &status, &pod, &lost), []);
    }

    fn held(nic: &str, address: &str, uid: &str) -> Holding {
        let address: ipnet::IpNet = address.parse().unwrap();
        let spec = json!({
            "address": address, "pool": "p", "interface": nic, "podNamespace": "n", "podName": "p", "podUID": uid,
            "ownerKind": "StatefulSet", "ownerName": "web",
        });
        let object = json!({"metadata": {"name": object_name(address.addr())}, "spec": spec});
        Holding::try_from(&serde_json::from_value::<SpiderIPAddress>(object).unwrap()).unwrap()
    }

    /// NIC and addresses of entries.
    fn texts(ips: &[EndpointIp]) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        ips.iter().map(|ip| format!("{} {} {}", ip.interface, text(&ip.ipv4), text(&ip.ipv6))).collect()
    }

    /// The endpoint of a StatefulSet's pod with these addresses.
    fn endpoint_of(uid: &str, node: &str, held: &[Holding]) -> SpiderEndpoint {
        let owner = Owner {
            pod: PodIdentity { uid: uid.parse().unwrap(), ..held[0].owner.pod.clone() },
            ..(*held[0].owner).clone()
        };
        Record::kept(&owner, node, held).object()
    }

    #[test]
    fn what_a_pod_leaves_is_added_address_by_address_and_nobodys_node_holds_it() {
        let (v4, v6) = (held("eth0", "10.6.0.9/16", "u"), held("eth0", "fd00::9/64", "u"));
        let mut found = endpoint_of("u", "n1", std::slice::from_ref(&v4));
        found.status.as_mut().unwrap().current.ips[0].ipv4_gateway = Some("10.6.0.1".to_owned());
        assert_eq!(found.metadata.owner_references, None);
        // One family after the other: neither costs the other.
        let found = handed_on(&found, &v4.owner.pod, std::slice::from_ref(&v6)).unwrap();
        let status = found.status.as_ref().unwrap();
        assert_eq!(texts(&status.current.ips), ["eth0 10.6.0.9/16 fd00::9/64"]);
        assert_eq!(
            (status.current.ips[0].ipv4_gateway.as_deref(), status.current.node.as_str()),
            (Some("10.6.0.1"), "")
        );
        for kept in [&v4, &v6] {
            assert_eq!(
                handed_on(&found, &v4.owner.pod, std::slice::from_ref(kept)),
                None,
                "it says so already"
            );
        }
        // That of a pod that has come since stays; one that no node holds is taken.
        let newer = endpoint_of("next", "n1", &[held("eth0", "10.6.0.10/16", "next")]);
        assert_eq!(handed_on(&newer, &v4.owner.pod, std::slice::from_ref(&v4)), None);
        let earlier = endpoint_of("earlier", "", &[held("net1", "10.6.0.11/16", "earlier")]);
        let taken =
            handed_on(&earlier, &v4.owner.pod, std::slice::from_ref(&v4)).unwrap().status.unwrap().current;
        assert_eq!(
            (taken.uid.as_str(), texts(&taken.ips)),
            ("u", vec!["net1 10.6.0.11/16 ".to_owned(), "eth0 10.6.0.9/16 ".to_owned()])
        );
    }

    #[test]
    fn what_was_left_for_a_nic_waits_until_the_pod_adds_it() {
        let nics = [
            held("eth0", "10.6.0.9/16", "u"),
            held("net1", "10.6.0.10/16", "u"),
            held("net2", "10.6.0.11/16", "u"),
        ];
        let found = endpoint_of("u", "", &nics);
        let next: PodUid = "next".parse().unwrap();
        assert_eq!(texts(&waiting_for(&found, &next)).len(), 3);
        let of_next = |nics: &[&str]| {
            let mut record = Record { lifetime: Lifetime::Name, ..record("next", nics) };
            for ip in &mut record.status.current.ips {
                ip.ipv4 = Some("10.6.0.99/16".to_owned());
            }
            record
        };
        let first = of_next(&["eth0"]).after(&found);
        let own = |endpoint: &SpiderEndpoint| texts(&endpoint.status.as_ref().unwrap().current.ips);
        // The pod does not hold them yet: nobody must take them for lost addresses of its own.
        assert_eq!(own(&first), ["eth0 10.6.0.99/16 "]);
        assert_eq!(texts(&waiting_for(&first, &next)), ["net1 10.6.0.10/16 ", "net2 10.6.0.11/16 "]);
        let second = of_next(&["net1"]).over(&first, first.status.as_ref().unwrap()).unwrap();
        assert_eq!(
            (own(&second).len(), texts(&waiting_for(&second, &next))),
            (2, vec!["net2 10.6.0.11/16 ".to_owned()])
        );
        assert_eq!(of_next(&["net1"]).over(&second, second.status.as_ref().unwrap()), None);
        let third = of_next(&["net2"]).over(&second, second.status.as_ref().unwrap()).unwrap();
        assert_eq!((third.metadata.annotations.as_ref(), waiting_for(&third, &next)), (None, vec![]));
        // Somebody has written into the annotation.
        let mut broken = second.clone();
        broken.metadata.annotations.as_mut().unwrap().insert(KEPT_ADDRESSES.to_owned(), "[{".to_owned());
        assert_eq!(waiting_for(&broken, &next), vec![]);

        // Freed: it is not named any more, and what a newer pod holds stays.
        let left = unclaimed(second.clone(), &nics[2..]).unwrap();
        assert_eq!((own(&left).len(), waiting_for(&left, &next)), (2, vec![]));
        assert_eq!(unclaimed(found.clone(), &nics[1..]).map(|left| own(&left).len()), Some(1));
        assert_eq!(unclaimed(found, &nics), None);
        assert_eq!(unclaimed(second.clone(), &nics).map(|left| own(&left)), Some(own(&second)));
    }

    /// Its pods have other names each time.
    #[test]
    fn the_endpoint_of_a_virtual_machine_names_its_pod() {
        let holding = held("eth0", "10.6.0.9/16", "u");
        let owner = Owner { virtual_machine: Some("db".into()), ..(*holding.owner).clone() };
        let found = Record::kept(&owner, "n1", std::slice::from_ref(&holding)).object();
        let named = |endpoint: &SpiderEndpoint| pod_name(&endpoint.metadata).unwrap().to_string();
        assert_eq!((found.metadata.name.as_deref(), named(&found).as_str()), (Some("db"), "n/p"));
        let status = found.status.as_ref().unwrap();
        let lost = lost_holdings(&owner.endpoint_name(), status, &owner.pod, Vec::<Holding>::new());
        assert_eq!(lost[0].owner.virtual_machine.as_deref(), Some("db"));
        let handed_on = handed_on(&found, &owner.pod, std::slice::from_ref(&holding)).unwrap();
        assert_eq!(named(&handed_on), "n/p");
        let next = PodIdentity { name: PodName::new("n", "q").unwrap(), uid: "next".parse().unwrap() };
        let next = Owner { pod: next, ..owner };
        let after = Record::kept(&next, "n2", &[held("eth0", "10.6.0.9/16", "next")]).after(&handed_on);
        assert_eq!((named(&after).as_str(), after.metadata.name.as_deref()), ("n/q", Some("db")));
        // That of any other pod says nothing more.
        assert_eq!(record("u", &["eth0"]).object().metadata.annotations, None);
    }
}
