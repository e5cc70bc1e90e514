//! SpiderIPPool: version, label and canonical ranges, the SpiderSubnet that it belongs to; everything that is wrong with the
//! spec, addresses that belong to somebody else, and addresses in use that would get lost.

use serde::Deserialize as _;
use serde_json::Value;
use spiderpool_api::crd::{FINALIZER, SpiderIPPool, SpiderSubnet, pool_fields};
use spiderpool_api::labels;
use spiderpool_core::admission::Families;
use spiderpool_core::admission::pool::{
    deletion_fault, in_use_fault, overlap_faults, pool_defaults, pool_faults, usable,
};
use spiderpool_core::admission::subnet::{
    affinity_faults, carved_fault, changes_addresses, other_subnet_faults, outside_fault,
};
use spiderpool_core::field_error::FieldError;
use spiderpool_core::ip::{Family, IpSet};
use spiderpool_core::ipam::pool::PoolFields;
use spiderpool_core::subnet::labels::is_auto_pool;
use spiderpool_core::subnet::{ControlledPools, Subnet};
use spiderpool_runtime::watch::Shared;

use super::completion::fill_in;
use super::in_use::AddressesInUse;
use super::known::KnownObjects;
use super::membership::{adopt, owner_of};
use super::response::{ReviewError, Verdict};
use super::stored_subnet::StoredSubnets;

/// Fills in what is absent. The finalizer is not set here: the leader does, of every pool, with its mark.
pub(super) fn mutate(object: &mut Value) {
    let Ok(pool) = SpiderIPPool::deserialize(&*object) else { return };
    let defaults = pool_defaults(&pool_fields(&pool));
    fill_in(object, defaults, labels::IPPOOL_CIDR);
}

/// What the decision about a pool needs.
pub(super) struct PoolValidator {
    pub(super) in_use: AddressesInUse,
    /// SpiderSubnets as they are stored; none where pools do not belong to subnets.
    pub(super) subnets: Option<StoredSubnets>,
    pub(super) known: Shared<KnownObjects>,
    pub(super) families: Families,
    /// Whether a pool with addresses in use may not be deleted.
    pub(super) guards_deletion: bool,
}

impl PoolValidator {
    /// Makes the pool the SpiderSubnet's that has its network, if there is one.
    pub(super) fn complete_membership(&self, object: &mut Value) {
        let Some(network) = object.pointer("/spec/subnet").and_then(Value::as_str).map(str::to_owned) else {
            return;
        };
        if self.subnets.is_some() {
            self.known.read(|known| known.subnet_of(&network).map(|(subnet, _)| adopt(object, subnet)));
        }
    }

    /// All faults of a new pool, or of one that replaces `old`, which comes as the API server has it.
    pub(super) async fn validate(
        &self,
        new: &SpiderIPPool,
        old: Option<&Value>,
    ) -> Result<Verdict, ReviewError> {
        let before = old.and_then(|old| SpiderIPPool::deserialize(old).ok());
        let is_terminating = new.metadata.deletion_timestamp.is_some();
        if is_terminating {
            let holds = new.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
            let fault = FieldError::forbidden("spec", "cannot update a terminating IPPool");
            return Ok(if holds { vec![fault].into() } else { Verdict::default() });
        }
        let fields = pool_fields(new);
        let fields_before = before.as_ref().map(pool_fields);
        let mut faults = pool_faults(&fields, fields_before.as_ref(), self.families);
        faults.extend(self.known.read(|known| {
            let others = known.pools.serving().map(AsRef::as_ref);
            overlap_faults(&fields, before.is_none(), others, &known.coordinators.service_cidrs())
        }));
        if let Some(subnets) = &self.subnets {
            faults.extend(self.membership_faults(subnets, new, before.as_ref()).await?);
        }
        let uid = before.as_ref().and_then(|before| before.metadata.uid.as_deref());
        if let (Some(before), Some(after)) = (fields_before.as_ref().and_then(usable), usable(&fields))
            && !before.difference(&after).is_empty()
        {
            faults.extend(self.lost_addresses(fields.name, uid, &after).await?);
        }
        Ok(faults.into())
    }

    /// What its SpiderSubnet has against the pool.
    async fn membership_faults(
        &self,
        subnets: &StoredSubnets,
        new: &SpiderIPPool,
        old: Option<&SpiderIPPool>,
    ) -> Result<Vec<FieldError>, ReviewError> {
        let (fields, before) = (pool_fields(new), old.map(pool_fields));
        let is_auto = [Some(new), old].into_iter().flatten().filter_map(|pool| pool.metadata.labels.as_ref());
        let is_auto = is_auto.into_iter().any(is_auto_pool);
        let mut faults = if is_auto { affinity_faults(&fields) } else { Vec::new() };
        let (others, known) = self.known.read(|known| {
            let others = before.is_none().then(|| other_subnet_faults(&fields, known.valid_subnets()));
            let of_network = known.subnet_of(fields.subnet);
            let outside = |parsed| outside_fault(&fields, before.as_ref(), parsed).is_some();
            (others, of_network.map(|(subnet, parsed)| (subnet.name.clone(), outside(parsed))))
        });
        faults.extend(others.into_iter().flatten());
        let is_carved = is_auto && changes_addresses(&fields, before.as_ref());
        let (name, is_outside) = match (known, owner_of(&new.metadata)) {
            (Some(known), _) => known,
            // The leader's watch is ahead of ours.
            (None, Some(owner)) => (owner.to_owned(), true),
            (None, None) => return Ok(faults),
        };
        // What a watch says may be old: the subnet has grown a moment ago.
        if is_outside || is_carved {
            let stored = subnets.get(&name).await?;
            let stored = stored.as_ref();
            let parsed = stored.and_then(|subnet| Subnet::try_from(subnet).ok());
            let parsed = parsed.filter(|parsed| fields.subnet.parse() == Ok(parsed.subnet));
            faults.extend(parsed.and_then(|parsed| outside_fault(&fields, before.as_ref(), &parsed)));
            if is_auto {
                let records = records(stored, &fields);
                faults.extend(carved_fault(&fields, before.as_ref(), &name, &records));
            }
        }
        Ok(faults)
    }

    async fn lost_addresses(
        &self,
        pool: &str,
        uid: Option<&str>,
        usable: &IpSet,
    ) -> Result<Option<FieldError>, ReviewError> {
        let lost = self.in_use.of(pool, uid, |address| usable.contains(address)).await?;
        Ok(in_use_fault(pool, lost))
    }

    /// Why the pool may not be deleted.
    pub(super) async fn validate_deletion(
        &self,
        pool: &str,
        uid: Option<&str>,
    ) -> Result<Verdict, ReviewError> {
        if !self.guards_deletion {
            return Ok(Verdict::default());
        }
        let count = self.in_use.of(pool, uid, |_| false).await?.len();
        Ok(deletion_fault(count).into_iter().collect::<Vec<_>>().into())
    }
}

/// What the subnet's status has for pools.
fn records(subnet: Option<&SpiderSubnet>, pool: &PoolFields<'_>) -> ControlledPools {
    let status = subnet.and_then(|subnet| subnet.status.as_ref());
    let text = status.and_then(|status| status.controlled_ip_pools.as_deref());
    let network = pool.subnet.parse().ok();
    network.map(|network| ControlledPools::parse(text, Family::of_net(&network))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_absent_is_filled_in_and_the_rest_stays() {
        let mut pool = json!({
            "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool", "metadata": {"name": "p"},
            "spec": {"subnet": "10.6.0.0/16", "ips": ["10.6.0.2", "10.6.0.1"], "later": {"a": null}},
        });
        mutate(&mut pool);
        assert_eq!(
            pool,
            json!({
                "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderIPPool",
                "metadata": {"name": "p", "labels": {"ipam.spidernet.io/ippool-cidr": "10-6-0-0-16"}},
                "spec": {
                    "ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.0.1-10.6.0.2"], "later": {"a": null},
                },
            })
        );
    }
}
