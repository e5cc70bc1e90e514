//! The second stage of an ADD: which addresses the pod should have, which of them it holds, and which pools may serve
//! the others. Nothing is written here.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{join_all, try_join_all};
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::candidates;
use spiderpool_core::ipam::{
    AllocationPlan, CandidateRequest, IpamError, Labels, PodAddresses, PodNetworks, PodPlace, Pool,
    PoolCandidates, PoolEntry, PoolSource, PoolTable, filter_pools, may_keep, plan_allocation,
    plan_candidates,
};
use spiderpool_core::names::{NodeName, PoolName};

use super::allocator::AddressObject;
use super::auto_pools::AutoPools;
use super::error::AllocateError;
use super::request::AllocationRequest;
use super::surroundings::Surroundings;
use crate::watches::{NamespaceMeta, PoolIndex, PoolSpecs, Shared};

/// What a request resolves to.
enum Resolution {
    /// All pools are known.
    Ready(AllocationPlan<AddressObject>),
    /// Some pools are not. When they are, the request is resolved again.
    Pending(PendingPools),
    /// So are the labels of the pod's node.
    NodeLabels,
}

/// Pools that have to be read before a request can be resolved. A pool that has still to be made is one more.
enum PendingPools {
    /// Those that the request names.
    Named(Vec<PoolName>),
    /// Those that could not be read until now: one of them may be a default pool.
    Unread,
}

/// The labels of the pod's node, where a pool asks for them.
enum NodeLabels {
    /// Nobody has asked.
    Unread,
    /// `None` if there is no such Node.
    Read(Option<Arc<Labels>>),
}

/// Why one NIC and family has no pools now.
enum Unresolved {
    Pending(PoolName),
    NodeLabels,
    Refused(IpamError),
}

/// What was read for a request.
struct Known {
    /// The pod's namespace.
    namespace: NamespaceMeta,
    node_labels: NodeLabels,
    /// Pools as they were read; `None` for one that does not exist.
    named: BTreeMap<PoolName, Option<PoolEntry>>,
    /// Whether those that could not be read before have been.
    unread: bool,
    /// The pools that are made for the workload at the pod's top.
    auto_pools: Vec<(PoolName, Family)>,
}

/// Resolves requests.
pub(super) struct PoolResolver {
    pub(super) node: NodeName,
    pub(super) families: Vec<Family>,
    pub(super) namespace: String,
    pub(super) cluster_network: String,
    /// Absent where no pools are made for workloads.
    pub(super) auto_pools: Option<AutoPools>,
    pub(super) pools: Shared<PoolIndex>,
    pub(super) pool_specs: PoolSpecs,
    pub(super) surroundings: Surroundings,
}

impl PoolResolver {
    /// What is to be done for a request, given what there is for the pod already. Pools that are not known yet are read.
    pub(super) async fn resolve(
        &self,
        request: &AllocationRequest,
        addresses: &PodAddresses<AddressObject>,
    ) -> Result<AllocationPlan<AddressObject>, AllocateError> {
        self.pool_specs.wait().await?;
        let mut known = Known {
            namespace: self.surroundings.namespace(request.pod.identity.name.namespace()).await?,
            node_labels: NodeLabels::Unread,
            named: BTreeMap::new(),
            unread: false,
            auto_pools: match &self.auto_pools {
                Some(auto_pools) if request.annotations.wants_subnet => auto_pools.of_nic(request).await?,
                _ => Vec::new(),
            },
        };
        loop {
            match self.try_resolve(request, addresses, &known)? {
                Resolution::Ready(plan) => return Ok(plan),
                Resolution::Pending(PendingPools::Unread) => {
                    self.pool_specs.get_unread().await?;
                    known.unread = true;
                }
                Resolution::NodeLabels => {
                    known.node_labels = NodeLabels::Read(self.surroundings.node_labels().await?);
                }
                Resolution::Pending(PendingPools::Named(names)) => {
                    let read = names.into_iter().map(async |name| match self.pool_specs.get(&name).await {
                        Ok(entry) => Ok((name, entry)),
                        Err(source) => Err(AllocateError::ReadPool { pool: name, source }),
                    });
                    known.named.extend(try_join_all(read).await?);
                }
            }
        }
    }

    /// The same errors, with what else is known of what is missing.
    pub(super) async fn explain(&self, errors: Vec<IpamError>) -> Vec<IpamError> {
        let Some(auto_pools) = &self.auto_pools else { return errors };
        join_all(errors.into_iter().map(|error| auto_pools.explain(error))).await
    }

    fn try_resolve(
        &self,
        request: &AllocationRequest,
        addresses: &PodAddresses<AddressObject>,
        known: &Known,
    ) -> Result<Resolution, AllocateError> {
        let candidates = match self.candidates(request, known) {
            Err(IpamError::NoSource | IpamError::NoPoolOfFamily { .. }) if !known.unread => {
                return Ok(Resolution::Pending(PendingPools::Unread));
            }
            Ok(candidates) if !known.unread && self.may_lack_default(&candidates) => {
                return Ok(Resolution::Pending(PendingPools::Unread));
            }
            candidates => candidates.map_err(|error| AllocateError::Ipam(vec![error]))?,
        };
        let requested = request.requested.check_families(&request.nic, &candidates);
        requested.map_err(|error| AllocateError::Ipam(vec![error]))?;
        let find_pools = |candidate: &PoolCandidates| self.pools_of(candidate, request, known);
        let may_keep =
            |candidate: &PoolCandidates, kept: &AddressObject| self.may_keep(candidate, kept, request, known);
        let unresolved = match plan_allocation(candidates, addresses, &request.nic, may_keep, find_pools) {
            Ok(plan) => return Ok(Resolution::Ready(plan)),
            Err(unresolved) => unresolved,
        };
        let (mut pending, mut refused) = (Vec::new(), Vec::new());
        for cause in unresolved {
            match cause {
                Unresolved::NodeLabels => return Ok(Resolution::NodeLabels),
                Unresolved::Pending(name) => pending.push(name),
                Unresolved::Refused(error) => refused.push(error),
            }
        }
        if pending.is_empty() {
            return Err(AllocateError::Ipam(refused));
        }
        Ok(Resolution::Pending(PendingPools::Named(pending)))
    }

    /// Whether a family has no default pool among those that have been read: one that has not may be it.
    fn may_lack_default(&self, candidates: &[PoolCandidates]) -> bool {
        let is_default = |candidate: &PoolCandidates| candidate.named_by == PoolSource::ClusterDefault;
        let has = |family: &Family| candidates.iter().any(|candidate| candidate.family == *family);
        candidates.iter().all(is_default)
            && !self.families.iter().all(has)
            && !self.pools.read(PoolIndex::unread).is_empty()
    }

    /// The addresses that the pod should have.
    fn candidates(
        &self,
        request: &AllocationRequest,
        known: &Known,
    ) -> Result<Vec<PoolCandidates>, IpamError> {
        let wanted = CandidateRequest {
            nic: &request.nic,
            families: &self.families,
            annotations: &request.annotations,
            namespace: request.pod.identity.name.namespace(),
            namespace_annotations: &known.namespace.annotations,
            cni_ipv4: &request.configured.ipv4,
            cni_ipv6: &request.configured.ipv6,
            cni_default_route: request.configured.default_route,
            match_master_subnet: request.configured.match_master_subnet,
            auto_pools: match &self.auto_pools {
                Some(_) => candidates::AutoPools::Enabled(&known.auto_pools),
                None => candidates::AutoPools::Disabled,
            },
            default_pools: &self.pools.read(PoolIndex::defaults),
        };
        plan_candidates(&wanted, |wildcard| {
            self.pools.read(|pools| {
                let matching = pools.families().filter(|(name, _)| wildcard.matches(name));
                // What was read is newer than the watch.
                let matching = matching.filter_map(|(name, family)| match known.named.get(name) {
                    Some(None) => None,
                    Some(Some(entry)) => Some((name.clone(), entry.family().or(family))),
                    None => Some((name.clone(), family)),
                });
                matching.collect()
            })
        })
    }

    /// The pools that may serve a NIC and family, best first.
    fn pools_of(
        &self,
        candidate: &PoolCandidates,
        request: &AllocationRequest,
        known: &Known,
    ) -> Result<Vec<Arc<Pool>>, Unresolved> {
        let mut table = PoolTable::new();
        for name in &candidate.pools {
            let entry = self.entry(name, known)?;
            table.extend(entry.map(|entry| (name.clone(), entry)));
        }
        let place = self.place(table.values(), request, known)?;
        let pools = filter_pools(candidate, &table, place).map_err(Unresolved::Refused)?;
        let pools: Vec<_> = pools.into_iter().cloned().collect();
        if candidate.nic != request.nic {
            return Ok(pools);
        }
        request.requested.narrow(candidate, pools).map_err(Unresolved::Refused)
    }

    /// Whether the pod is to go on with an address that an earlier one of its name had.
    fn may_keep(
        &self,
        candidate: &PoolCandidates,
        kept: &AddressObject,
        request: &AllocationRequest,
        known: &Known,
    ) -> Result<bool, Unresolved> {
        let Some(entry) = self.entry(&kept.holding.pool, known)? else { return Ok(false) };
        let place = self.place([&entry], request, known)?;
        let is_requested = candidate.nic != request.nic
            || request.requested.check_given(candidate, kept.holding.ip()).is_ok();
        Ok(is_requested && may_keep(candidate, &entry, place))
    }

    /// A pool, as far as it exists.
    fn entry(&self, name: &PoolName, known: &Known) -> Result<Option<PoolEntry>, Unresolved> {
        let entry = self.pools.read(|pools| pools.entry(name)).map(Some);
        let entry = entry.or_else(|| known.named.get(name).cloned());
        entry.ok_or_else(|| Unresolved::Pending(name.clone()))
    }

    /// What these pools may ask of the pod.
    fn place<'a>(
        &'a self,
        pools: impl IntoIterator<Item = &'a PoolEntry>,
        request: &'a AllocationRequest,
        known: &'a Known,
    ) -> Result<PodPlace<'a>, Unresolved> {
        let selects_nodes =
            |entry: &PoolEntry| entry.spec.as_ref().is_ok_and(|pool| pool.node_selector().is_some());
        let node_labels = match &known.node_labels {
            NodeLabels::Unread if pools.into_iter().any(selects_nodes) => return Err(Unresolved::NodeLabels),
            NodeLabels::Unread => None,
            NodeLabels::Read(labels) => labels.as_deref(),
        };
        let namespace = request.pod.identity.name.namespace();
        Ok(PodPlace {
            node: self.node.as_str(),
            node_labels,
            namespace,
            namespace_labels: &known.namespace.labels,
            labels: &request.labels,
            networks: PodNetworks {
                annotations: &request.pod.annotations,
                namespace,
                own_namespace: &self.namespace,
                cluster_network: &self.cluster_network,
            },
        })
    }
}
