//! The indexes together: what changes in one of them decides about pods and pools by what the others hold.

use std::collections::HashSet;
use std::mem;
use std::sync::Arc;

use ipnet::IpNet;
use kube::Resource as _;
use kube::core::DeserializeGuard;
use spiderpool_api::crd::{SpiderCoordinator, SpiderIPPool};
use spiderpool_api::virtual_machine::MachineKind;
use spiderpool_core::ipam::{KeptWorkloads, Owner, Successor, SuccessorSource};
use spiderpool_core::names::{PodIdentity, PodName, PoolName};
use spiderpool_runtime::coordinators::CoordinatorIndex;
use spiderpool_runtime::pools::{PoolIndex, PoolObject, pool_name};
use spiderpool_runtime::watch::Index;

use super::addresses::{AddressChange, AddressIndex};
use super::endpoints::EndpointIndex;
use super::interner::Interner;
use super::node_cidrs::NodeCidrIndex;
use super::node_leases::{NodeLeaseIndex, SlimLease};
use super::nodes::NodeIndex;
use super::pods::PodIndex;
use super::pools::{self, LeaderFields};
use super::slim::{SlimAddress, SlimEndpoint, SlimNode, SlimPod};
use super::stateful_sets::{SlimStatefulSet, StatefulSetIndex};
use super::third_parties::ThirdParties;
use super::virtual_machines::{MigrationTargets, SlimMachine, VirtualMachineIndex};

/// Keys of what has changed since [`ClusterState::take_changes`].
#[derive(Debug, Default)]
pub(crate) struct Changes {
    /// Pods that have addresses or an endpoint.
    pub(crate) pods: HashSet<PodIdentity>,
    /// Pools whose status or bitmaps may be outdated.
    pub(crate) pools: HashSet<Arc<str>>,
    /// SpiderSubnets of which third parties want something else.
    pub(crate) subnets: HashSet<PoolName>,
    /// Whether nodes have other pod CIDRs.
    pub(crate) node_cidrs: bool,
}

/// All indexes.
#[derive(Debug, Default)]
pub(crate) struct ClusterState {
    interner: Interner,
    /// Addresses in use.
    pub(crate) addresses: AddressIndex,
    /// All pods.
    pub(crate) pods: PodIndex,
    /// All nodes.
    pub(crate) nodes: NodeIndex,
    /// The nodes' pod CIDRs.
    pub(crate) node_cidrs: NodeCidrIndex,
    /// What agents say of nodes that are not ready.
    pub(crate) node_leases: NodeLeaseIndex,
    /// All endpoints.
    pub(crate) endpoints: EndpointIndex,
    /// StatefulSets, where their pods keep addresses.
    pub(crate) stateful_sets: StatefulSetIndex,
    /// Virtual machines, once pods of some have addresses that stay with them.
    pub(crate) virtual_machines: VirtualMachineIndex,
    /// Pods that virtual machines move to, or have moved to.
    pub(crate) migration_targets: MigrationTargets,
    /// Applications of third parties that want pools of SpiderSubnets.
    pub(crate) third_parties: ThirdParties,
    /// All pools.
    pub(crate) pools: PoolIndex<LeaderFields>,
    /// The CIDRs of overlay pods.
    pub(crate) pod_cidrs: Vec<IpNet>,
    coordinators: CoordinatorIndex,
    changes: Changes,
}

impl ClusterState {
    /// What has changed since the last call.
    pub(crate) fn take_changes(&mut self) -> Changes {
        mem::take(&mut self.changes)
    }

    /// Marks every pod with addresses or an endpoint, and every pool.
    pub(crate) fn mark_all_changed(&mut self) {
        let owners = self.addresses.owners().cloned();
        self.changes.pods.extend(owners.chain(self.endpoints.pods()));
        let pools = self.pools.names().cloned().map(Into::into);
        self.changes.pools.extend(pools.chain(self.addresses.pools()));
    }

    /// Marks the pod if it has addresses or an endpoint.
    fn mark_pod_changed(&mut self, pod: PodIdentity) {
        let has_endpoint = self.endpoints.of_pod(&pod).is_some();
        if has_endpoint || self.addresses.owner(&pod).is_some() {
            self.changes.pods.insert(pod);
        }
    }

    /// Marks the pods with addresses on this node.
    fn mark_node_changed(&mut self, name: &str) {
        let is_bound_to =
            |pod: &&PodIdentity| self.addresses.node(pod).is_some_and(|node| node.as_str() == name);
        let of_node = self.addresses.owners().filter(is_bound_to);
        self.changes.pods.extend(of_node.cloned());
    }

    /// Marks the pods with addresses that this StatefulSet has made.
    fn mark_stateful_set_changed(&mut self, set: &SlimStatefulSet) {
        self.mark_pods_of(|owner| {
            owner.stateful_set() == Some(&*set.name) && owner.pod.name.namespace() == set.namespace
        });
    }

    /// Whether another pod that is to have this one's addresses will come.
    pub(crate) fn successor(&self, owner: &Owner, kept: KeptWorkloads) -> Successor {
        match kept.source(owner) {
            None => Successor::None,
            Some(SuccessorSource::StatefulSet(_)) => self.stateful_sets.successor(owner),
            Some(SuccessorSource::VirtualMachine(machine)) => {
                self.virtual_machines.successor(owner.pod.name.namespace(), machine)
            }
        }
    }

    /// The name of a pod's endpoint.
    pub(crate) fn endpoint_name(&self, pod: &PodIdentity) -> PodName {
        match self.addresses.owner(pod) {
            Some(owner) => owner.endpoint_name(),
            None => self.endpoints.name(pod).clone(),
        }
    }

    /// A virtual machine is new or has changed.
    pub(crate) fn apply_machine(&mut self, kind: MachineKind, machine: &SlimMachine) {
        // Most updates are of its status.
        if self.virtual_machines.insert(kind, machine) {
            self.mark_machine_changed(machine);
        }
    }

    /// A virtual machine is gone.
    pub(crate) fn delete_machine(&mut self, kind: MachineKind, machine: &SlimMachine) {
        self.virtual_machines.remove(kind, machine);
        self.mark_machine_changed(machine);
    }

    /// Exactly these virtual machines exist; `None`: nobody knows which.
    pub(crate) fn reset_machines(&mut self, kind: MachineKind, machines: Option<&[SlimMachine]>) {
        match machines {
            Some(machines) => self.virtual_machines.reset(kind, machines),
            None => self.virtual_machines.forget(kind),
        }
        self.mark_pods_of(|owner| owner.virtual_machine.is_some());
    }

    fn mark_machine_changed(&mut self, machine: &SlimMachine) {
        self.mark_pods_of(|owner| {
            owner.virtual_machine.as_deref() == Some(&*machine.name)
                && owner.pod.name.namespace() == machine.namespace
        });
    }

    /// Marks the pods that hold addresses, or have left some, and of which this is so.
    fn mark_pods_of(&mut self, is_meant: impl Fn(&Owner) -> bool) {
        let pods = self.addresses.all_owners().filter(|owner| is_meant(owner));
        self.changes.pods.extend(pods.map(|owner| owner.pod.clone()));
    }

    /// Marks the pods that have left addresses for the virtual machine that moves to this one.
    fn mark_left_changed(&mut self, target: &SlimPod) {
        let left = target.moved_machine.iter().flat_map(|machine| self.addresses.kept_for(machine));
        self.changes.pods.extend(left.map(|holding| holding.owner.pod.clone()));
    }

    /// Marks the pools that share addresses with this one: it decides whether they may be used.
    fn mark_overlapping_changed(&mut self, pool: &str) {
        self.changes.pools.extend(self.pools.overlapping(pool).cloned().map(Into::into));
    }

    /// Takes over the coordinator's CIDRs: which pools may be used, and for what.
    fn update_cidrs(&mut self) {
        let pod_cidrs = self.coordinators.pod_cidrs();
        let are_new = self.pod_cidrs != pod_cidrs;
        self.pod_cidrs = pod_cidrs;
        if self.pools.set_service_cidrs(self.coordinators.service_cidrs()) || are_new {
            self.changes.pools.extend(self.pools.names().cloned().map(Into::into));
        }
    }

    fn mark_address_changed(&mut self, AddressChange { pool, pod }: AddressChange) {
        self.changes.pools.insert(pool);
        if let Some(pod) = pod {
            self.mark_pod_changed(pod);
        }
    }

    /// Applies the response to a write of ours, unless the watch is ahead of it.
    pub(crate) fn apply_written(&mut self, object: SpiderIPPool) {
        if pools::is_current(&self.pools, &object.metadata) {
            self.apply(DeserializeGuard(Ok(object)));
        }
    }
}

impl Index<SlimAddress> for ClusterState {
    fn apply(&mut self, address: SlimAddress) {
        self.delete(&address);
        if let Some(change) = self.addresses.insert(address, &mut self.interner) {
            self.mark_address_changed(change);
        }
    }

    fn delete(&mut self, address: &SlimAddress) {
        if let Some(change) = address.ip.and_then(|ip| self.addresses.remove(ip)) {
            self.mark_address_changed(change);
        }
    }

    fn reset(&mut self, addresses: Vec<SlimAddress>) {
        let before = mem::take(&mut self.addresses);
        self.changes.pools.extend(before.pools());
        drop(before);
        for address in addresses {
            self.addresses.insert(address, &mut self.interner);
        }
        self.mark_all_changed();
    }
}

impl Index<SlimPod> for ClusterState {
    fn apply(&mut self, pod: SlimPod) {
        let Some(identity) = &pod.identity else { return };
        self.changes.subnets.extend(self.third_parties.insert(&identity.uid, pod.third_party.as_ref()));
        self.migration_targets.insert(identity, pod.moved_machine.as_ref());
        // Most updates change nothing that matters here.
        if self.pods.apply(&pod, &identity.uid, &mut self.interner) {
            self.mark_pod_changed(identity.clone());
            self.mark_left_changed(&pod);
        }
    }

    fn delete(&mut self, pod: &SlimPod) {
        let Some(identity) = &pod.identity else { return };
        self.changes.subnets.extend(self.third_parties.remove(&identity.uid));
        self.migration_targets.remove(identity);
        self.pods.delete(pod, &identity.uid);
        self.mark_pod_changed(identity.clone());
        self.mark_left_changed(pod);
    }

    fn reset(&mut self, pods: Vec<SlimPod>) {
        self.pods.reset(&pods, &mut self.interner);
        self.changes.subnets.extend(self.third_parties.clear());
        self.migration_targets.clear();
        for pod in &pods {
            let Some(identity) = &pod.identity else { continue };
            self.migration_targets.insert(identity, pod.moved_machine.as_ref());
            self.changes.subnets.extend(self.third_parties.insert(&identity.uid, pod.third_party.as_ref()));
        }
        self.mark_all_changed();
    }
}

impl Index<SlimNode> for ClusterState {
    fn apply(&mut self, node: SlimNode) {
        self.changes.node_cidrs |= self.node_cidrs.insert(&node);
        if self.nodes.insert(&node) {
            self.mark_node_changed(&node.name);
        }
    }

    fn delete(&mut self, node: &SlimNode) {
        self.changes.node_cidrs |= self.node_cidrs.remove(&node.name);
        self.nodes.remove(&node.name);
        self.mark_node_changed(&node.name);
    }

    fn reset(&mut self, nodes: Vec<SlimNode>) {
        self.node_cidrs.reset(&nodes);
        self.changes.node_cidrs = true;
        self.nodes.reset(&nodes);
        self.mark_all_changed();
    }
}

impl Index<SlimStatefulSet> for ClusterState {
    fn apply(&mut self, set: SlimStatefulSet) {
        // Most updates are of its status.
        if self.stateful_sets.insert(&set) {
            self.mark_stateful_set_changed(&set);
        }
    }

    fn delete(&mut self, set: &SlimStatefulSet) {
        self.stateful_sets.remove(set);
        self.mark_stateful_set_changed(set);
    }

    fn reset(&mut self, sets: Vec<SlimStatefulSet>) {
        self.stateful_sets.reset(&sets);
        self.mark_all_changed();
    }
}

/// A Lease that is written calls for nothing: what it says is looked at when something else calls for freeing an address,
/// and again when it may have expired.
impl Index<SlimLease> for ClusterState {
    fn apply(&mut self, lease: SlimLease) {
        self.node_leases.insert(lease);
    }

    fn delete(&mut self, lease: &SlimLease) {
        if let Some(node) = self.node_leases.remove(lease) {
            self.mark_node_changed(node.as_str());
        }
    }

    fn reset(&mut self, leases: Vec<SlimLease>) {
        self.node_leases.reset(leases);
    }
}

impl Index<SlimEndpoint> for ClusterState {
    fn apply(&mut self, endpoint: SlimEndpoint) {
        if let Some(pod) = self.endpoints.insert(&endpoint, &mut self.interner) {
            self.mark_pod_changed(pod);
        }
    }

    fn delete(&mut self, endpoint: &SlimEndpoint) {
        let Some(name) = &endpoint.name else { return };
        if let Some(pod) = self.endpoints.remove(name) {
            self.mark_pod_changed(pod);
        }
    }

    fn reset(&mut self, endpoints: Vec<SlimEndpoint>) {
        self.endpoints.clear();
        for endpoint in &endpoints {
            self.endpoints.insert(endpoint, &mut self.interner);
        }
        self.mark_all_changed();
    }
}

impl Index<PoolObject> for ClusterState {
    fn apply(&mut self, object: PoolObject) {
        let name = object.meta().name.clone().unwrap_or_default();
        self.mark_overlapping_changed(&name);
        pools::insert(&mut self.pools, &object);
        self.changes.pools.extend(pool_name(object.meta()).map(Into::into));
        self.mark_overlapping_changed(&name);
    }

    fn delete(&mut self, object: &PoolObject) {
        let name = object.meta().name.as_deref().unwrap_or_default();
        self.mark_overlapping_changed(name);
        let name = self.pools.remove(name);
        self.changes.pools.extend(name.map(Into::into));
    }

    fn reset(&mut self, objects: Vec<PoolObject>) {
        self.changes.pools.extend(self.pools.names().cloned().map(Into::into));
        self.pools.retain(&objects.iter().filter_map(|object| pool_name(object.meta())).collect());
        for object in objects {
            self.pools.forget_later(object.meta());
            self.apply(object);
        }
        self.mark_all_changed();
    }
}

impl Index<SpiderCoordinator> for ClusterState {
    fn apply(&mut self, coordinator: SpiderCoordinator) {
        self.coordinators.apply(coordinator);
        self.update_cidrs();
    }

    fn delete(&mut self, coordinator: &SpiderCoordinator) {
        self.coordinators.delete(coordinator);
        self.update_cidrs();
    }

    fn reset(&mut self, coordinators: Vec<SpiderCoordinator>) {
        self.coordinators.reset(coordinators);
        self.update_cidrs();
    }
}
