//! What an ADD wants: NICs and families, and the pools that may serve each of them.

use std::sync::Arc;

use spiderpool_api::agent::ipam::IpamAddArgs;
use spiderpool_core::ipam::candidates::DefaultRoute;
use spiderpool_core::ipam::{
    Candidate, CandidateRequest, Held as Known, IpamError, PodAnnotations, PodPlace, Pool, PoolTable, Step,
    filter_pools, plan_candidates,
};
use spiderpool_core::names::{IfName, NameError, PoolName};

use super::Ipam;
use super::error::AllocateError;
use crate::watches::{Pod, PoolIndex};

/// An address that is wanted, with the pools that may serve it; none for one that is held.
pub(super) struct Wanted {
    /// NIC and family.
    pub(super) candidate: Candidate,
    /// What the pod has for it.
    pub(super) held: Option<Known>,
    /// Most specific first.
    pub(super) pools: Vec<Arc<Pool>>,
}

impl Ipam {
    /// The addresses that the pod should have.
    pub(super) async fn candidates(
        &self,
        args: &IpamAddArgs,
        pod: &Pod,
        annotations: &PodAnnotations,
    ) -> Result<Vec<Candidate>, AllocateError> {
        let nic: IfName =
            args.if_name.parse().map_err(|error: NameError| AllocateError::Request(error.to_string()))?;
        let plan = || {
            plan_candidates(&CandidateRequest {
                nic: &nic,
                families: &self.settings.families,
                annotations,
                namespace_annotations: &self
                    .indexes
                    .namespaces
                    .read(|index| index.annotations(&pod.namespace)),
                cni_ipv4: args.default_ipv4_ip_pool.as_deref().unwrap_or_default(),
                cni_ipv6: args.default_ipv6_ip_pool.as_deref().unwrap_or_default(),
                cni_default_route: if args.clean_gateway { DefaultRoute::Clean } else { DefaultRoute::Keep },
                match_master_subnet: args.match_master_subnet,
                auto_pool: self.settings.auto_pool,
                default_pools: &self.indexes.pools.read(PoolIndex::defaults),
            })
        };
        self.pool_specs.wait().await?;
        let mut planned = plan();
        if planned == Err(IpamError::NoSource) {
            // A pool that could not be read may be a default one.
            self.pool_specs.get_unread().await?;
            planned = plan();
        }
        planned.map_err(|error| AllocateError::Standard(vec![error]))
    }

    /// Finds the pools for what must be taken, before anything is.
    pub(super) async fn wanted(&self, steps: Vec<Step>, pod: &Pod) -> Result<Vec<Wanted>, AllocateError> {
        let place = PodPlace { node: self.settings.node.as_str(), namespace: &pod.namespace };
        let (mut all, mut errors) = (Vec::new(), Vec::new());
        for step in steps {
            match step {
                Step::Keep { candidate, held } => {
                    all.push(Wanted { candidate, held: Some(held), pools: Vec::new() });
                }
                Step::Allocate(candidate) => {
                    let table = self.pool_table(&candidate.pools).await?;
                    match filter_pools(&candidate, &table, place) {
                        Ok(pools) => {
                            let pools = pools.into_iter().cloned().collect();
                            all.push(Wanted { candidate, held: None, pools });
                        }
                        Err(error) => errors.push(error),
                    }
                }
            }
        }
        if errors.is_empty() { Ok(all) } else { Err(AllocateError::Standard(errors)) }
    }

    /// The named pools, as far as they exist.
    pub(super) async fn pool_table(&self, names: &[PoolName]) -> Result<PoolTable, AllocateError> {
        let mut table = PoolTable::new();
        for name in names {
            let pool = self.pool_specs.get(name).await;
            let pool = pool.map_err(|source| AllocateError::ReadPool { pool: name.clone(), source })?;
            table.extend(pool.map(|pool| (name.clone(), pool)));
        }
        Ok(table)
    }
}
