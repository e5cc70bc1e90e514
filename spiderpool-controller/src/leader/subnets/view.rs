//! What the leader's state says of a subnet.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use spiderpool_api::crd::SpiderSubnet;
use spiderpool_core::ip::{IpRange, IpSet};
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::plan::{Controller, Member};
use spiderpool_core::subnet::{ControlledPools, Subnet};
use spiderpool_runtime::pools::{AllocationOwner, PoolIndex};

use super::known::{PoolTrace, TracedPool};
use crate::leader::state::{ClusterState, LeaderFields, LeaderPool};

/// Which state of a pool was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SeenPool {
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
}

/// The pools and addresses of a subnet.
#[derive(Debug)]
pub(super) struct SubnetView {
    pub(super) members: Vec<Member>,
    pub(super) seen: BTreeMap<PoolName, SeenPool>,
    /// Addresses of the subnet that are in use, also such as no pool has any more.
    pub(super) in_use: IpSet,
}

impl SubnetView {
    /// `read` has pools that the watch may not have shown.
    pub(super) fn new(
        state: &ClusterState,
        read: &PoolIndex<LeaderFields>,
        object: &SpiderSubnet,
        subnet: &Subnet,
    ) -> Self {
        let (mut members, mut seen) = (Vec::new(), BTreeMap::new());
        let mut in_use = Vec::new();
        let names: BTreeSet<_> = state.pools.names().chain(read.names()).collect();
        for name in names {
            let Some(pool) = latest(state, read, name.as_str()) else { continue };
            let Some(Ok(spec)) = pool.spec() else { continue };
            if spec.subnet != subnet.subnet {
                // Of another prefix length: whoever made it, its addresses are not the subnet's to give.
                if spec.subnet.contains(&subnet.subnet) || subnet.subnet.contains(&spec.subnet) {
                    let others = spec.usable.union(&used(state, name.as_str(), subnet));
                    in_use.extend(others.intersection(&subnet.usable).ranges());
                }
                continue;
            }
            let used = match pool.owner() {
                // Which these are its status says, until they are imported.
                AllocationOwner::Upstream => spec.usable.clone(),
                AllocationOwner::Ours | AllocationOwner::Nobody => used(state, name.as_str(), subnet),
            };
            in_use.extend(used.ranges());
            seen.insert(name.clone(), SeenPool { uid: pool.uid.clone(), generation: pool.generation });
            members.push(Member {
                name: name.clone(),
                usable: spec.usable.clone(),
                used,
                labels: pool.labels.clone(),
                size: pool.extra.size.clone(),
                controller: controller(pool, object),
                terminating: pool.terminating,
            });
        }
        // Of pools that are gone, or that nobody can read.
        let is_unseen = |pool: &Arc<str>| {
            let other = latest(state, read, pool).and_then(LeaderPool::spec);
            !matches!(other, Some(Ok(_)))
        };
        for pool in state.addresses.pools().filter(is_unseen) {
            in_use.extend(used(state, &pool, subnet).ranges());
        }
        Self { members, seen, in_use: IpSet::from_ranges(subnet.family(), in_use) }
    }
}

/// A pool as its watch has it, or as it was read since.
fn latest<'a>(
    state: &'a ClusterState,
    read: &'a PoolIndex<LeaderFields>,
    name: &str,
) -> Option<&'a LeaderPool> {
    let (watched, read) = (state.pools.get(name), read.get(name));
    let is_ahead = |watched: &&LeaderPool| {
        read.is_none_or(|read| watched.uid == read.uid && watched.generation >= read.generation)
    };
    watched.filter(is_ahead).or(read)
}

/// The pools that have less than a subnet's status says, as far as their watch has shown.
pub(super) fn behind(state: &ClusterState, subnet: &Subnet, records: &ControlledPools) -> Vec<String> {
    records.behind(|name| {
        let spec = state.pools.get(name)?.spec()?.as_ref().ok()?;
        (spec.subnet == subnet.subnet).then_some(&spec.usable)
    })
}

fn used(state: &ClusterState, pool: &str, subnet: &Subnet) -> IpSet {
    let addresses = state.addresses.of_pool(pool).map(|(ip, _)| ip);
    let of_subnet = addresses.filter(|ip| subnet.subnet.contains(ip)).map(IpRange::single);
    IpSet::from_ranges(subnet.family(), of_subnet)
}

fn controller(pool: &LeaderPool, subnet: &SpiderSubnet) -> Controller {
    match &pool.extra.controller {
        None => Controller::None,
        Some((_, uid)) if subnet.uid().as_ref() == Some(uid) => Controller::Subnet,
        // An earlier one.
        Some((kind, _)) if *kind == SpiderSubnet::kind(&()) => Controller::None,
        Some(_) => Controller::Other,
    }
}

/// Whether a pool is the subnet's, whatever its addresses are: it goes with it.
pub(super) fn owns_pools(state: &ClusterState, subnet: &SpiderSubnet) -> bool {
    let mut pools = state.pools.names().filter_map(|name| state.pools.get(name.as_str()));
    pools.any(|pool| controller(pool, subnet) == Controller::Subnet)
}

/// What subnets see of these pools.
pub(super) fn trace_all(state: &ClusterState, pools: &HashSet<Arc<str>>) -> Vec<PoolTrace> {
    let trace = |pool: &LeaderPool| TracedPool {
        uid: pool.uid.clone(),
        generation: pool.generation,
        terminating: pool.terminating,
        cidr: pool.spec().and_then(|spec| spec.as_ref().ok()).map(|spec| spec.subnet),
        labels: pool.labels.clone(),
        controller: pool.extra.controller.as_ref().map(|(_, uid)| uid.clone()),
    };
    let all = pools
        .iter()
        .map(|pool| PoolTrace { pool: Arc::clone(pool), known: state.pools.get(pool).map(trace) });
    all.collect()
}
