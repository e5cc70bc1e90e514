//! Pools that the leader makes of SpiderSubnets for the workload at a pod's top.
//!
//! The leader makes and changes them when it sees the workload, which is about when the pod's ADD begins: a request waits for
//! them, so that the kubelet need not try again.

use std::time::Duration;

use kube::Api;
use spiderpool_api::crd::SpiderSubnet;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::IpamError;
use spiderpool_core::ipam::address_name::label_value;
use spiderpool_core::ipam::annotations::key::{IPPOOL_IP_NUMBER, SUBNETS};
use spiderpool_core::names::PoolName;
use spiderpool_core::subnet::application::PoolPurpose;
use spiderpool_core::subnet::labels::{OWNER_APPLICATION_UID, OWNER_SUBNET};
use spiderpool_core::subnet::{Application, PoolSize, Subnet, SubnetRequest, parse_request};
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio::time::Instant;
use tracing::debug;

use super::error::AllocateError;
use super::request::AllocationRequest;
use crate::watches::{PoolIndex, Shared};

/// How long a request waits for a pool: less than runtimes wait for an ADD.
const POOL_LIMIT: Duration = Duration::from_secs(20);
/// How long it waits for addresses where all of a pool are in use: the pool may grow with its workload, or a pod that is replaced
/// may give one back.
const ADDRESS_LIMIT: Duration = Duration::from_secs(8);
/// How often it looks, at first and later: there may be thousands of pools, and many pods that wait.
const POOL_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_POOL_PAUSE: Duration = Duration::from_millis(500);
const ADDRESS_PAUSE: Duration = Duration::from_millis(300);

/// Finds them.
pub(super) struct AutoPools {
    pub(super) kube: Kubernetes,
    pub(super) families: Vec<Family>,
    pub(super) pools: Shared<PoolIndex>,
}

impl AutoPools {
    /// The pools of the NIC that is added, at most one of each family.
    pub(super) async fn of_nic(
        &self,
        request: &AllocationRequest,
    ) -> Result<Vec<(PoolName, Family)>, AllocateError> {
        let wanted = wanted(request, &self.families).map_err(|error| AllocateError::Ipam(vec![error]))?;
        let (begun, mut next_pause) = (Instant::now(), POOL_PAUSE);
        loop {
            let (found, missing) = self.find(&wanted);
            let Some(missing) = missing else { return Ok(found) };
            if begun.elapsed() >= POOL_LIMIT {
                return Err(AllocateError::Ipam(vec![missing.error()]));
            }
            pause(request, next_pause).await?;
            next_pause = (next_pause * 2).min(LONGEST_POOL_PAUSE);
        }
    }

    /// What there is, and the first that is not.
    fn find<'w>(&self, wanted: &'w [Wanted]) -> (Vec<(PoolName, Family)>, Option<&'w Wanted>) {
        let mut found = Vec::new();
        for one in wanted {
            let is_its = |pools: &PoolIndex, name: &PoolName| {
                pools.get(name.as_str()).is_some_and(|pool| {
                    pool.labels.get(OWNER_APPLICATION_UID) == Some(&one.purpose.uid)
                        && !pool.terminating
                        && one.purpose.is_of(&pool.labels)
                        && pool.labels.get(OWNER_SUBNET) == Some(&label_value(one.subnet.as_str()))
                })
            };
            let pool = self.pools.read(|pools| pools.names().find(|name| is_its(pools, name)).cloned());
            match pool {
                Some(pool) => found.push((pool, one.purpose.family)),
                None => return (found, Some(one)),
            }
        }
        (found, None)
    }

    /// What the API server says of SpiderSubnets that a failure is about: whether one has the name that is listed as a pool's, or
    /// is the one that is to serve the pod.
    pub(super) async fn explain(&self, error: IpamError) -> IpamError {
        let name = match &error {
            IpamError::PoolMissing { pool, .. } => pool,
            IpamError::AutoPoolMissing { subnet, .. } => subnet,
            _ => return error,
        };
        let subnets = Api::<SpiderSubnet>::all(self.kube.client());
        let found = match self.kube.read(subnets.get_opt(name.as_str())).await {
            Ok(found) => found,
            Err(failure) => {
                debug!(subnet = %name, %failure, "it cannot be read whether there is a SpiderSubnet of the name");
                return error;
            }
        };
        match (error, found) {
            (IpamError::PoolMissing { pool, nic }, Some(_)) => IpamError::SubnetAsPool { subnet: pool, nic },
            (IpamError::AutoPoolMissing { subnet, family, nic, .. }, found)
                if found.as_ref().is_none_or(|found| !serves(found, family)) =>
            {
                IpamError::SubnetMissing { subnet, family, nic }
            }
            (error, _) => error,
        }
    }
}

/// Waits before another attempt, if the addresses of pools that may grow are all in use; `None` if it is time to give up.
pub(super) async fn await_addresses(
    request: &AllocationRequest,
    begun: Instant,
    errors: &[IpamError],
) -> Result<Option<()>, AllocateError> {
    let may_grow = request.annotations.wants_subnet && errors.iter().all(IpamError::is_used_out);
    if !may_grow || begun.elapsed() >= ADDRESS_LIMIT {
        return Ok(None);
    }
    pause(request, ADDRESS_PAUSE).await.map(Some)
}

async fn pause(request: &AllocationRequest, pause: Duration) -> Result<(), AllocateError> {
    let abandoned = &request.claimant.abandoned;
    let paused = abandoned.run_until_cancelled(tokio::time::sleep(pause)).await;
    paused.ok_or_else(|| AllocateError::Abandoned(request.pod.identity.name.clone()))
}

/// Whether pools of this family are made of the subnet.
fn serves(subnet: &SpiderSubnet, family: Family) -> bool {
    subnet.metadata.deletion_timestamp.is_none()
        && Subnet::try_from(subnet).is_ok_and(|subnet| subnet.family() == family)
}

/// A pool that the workload wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    subnet: PoolName,
    purpose: PoolPurpose,
}

impl Wanted {
    fn error(&self) -> IpamError {
        let PoolPurpose { application, nic, family, .. } = &self.purpose;
        let Application { kind, namespace, name, .. } = application;
        IpamError::AutoPoolMissing {
            subnet: self.subnet.clone(),
            family: *family,
            nic: nic.clone(),
            workload: format!("{kind} {namespace}/{name}"),
        }
    }
}

/// The pools that the workload wants for the NIC.
fn wanted(request: &AllocationRequest, families: &[Family]) -> Result<Vec<Wanted>, IpamError> {
    let Some(SubnetRequest { nics, size, .. }) = parse_request(&request.pod.annotations)? else {
        return Ok(Vec::new());
    };
    if matches!(request.top.kind.as_str(), "Pod" | "Node") {
        return Err(IpamError::AutoPoolOfBarePod(request.pod.identity.name.clone()));
    }
    let application = request.application();
    if !application.is_watched() && !matches!(size, Some(PoolSize::Fixed(_))) {
        let kind = &application.kind;
        let cause = format!(
            "a third-party {kind} only supports fixed auto-created IPPool IP Number: give a number without +"
        );
        return Err(IpamError::Annotation { key: IPPOOL_IP_NUMBER, cause });
    }
    let nic = nics.of_nic(&request.nic).ok_or_else(|| IpamError::Annotation {
        key: SUBNETS,
        cause: format!("interface {} must be specified", request.nic),
    })?;
    let wanted = families.iter().filter_map(|family| {
        let (application, uid) = (application.clone(), request.top.uid.clone());
        let purpose = PoolPurpose { application, uid, nic: nic.nic.clone(), family: *family };
        Some(Wanted { subnet: nic.of(*family)?.clone(), purpose })
    });
    Ok(wanted.collect())
}
