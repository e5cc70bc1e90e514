//! SpiderIPPool: version, label and canonical ranges; everything that is wrong with the spec, addresses that belong to
//! somebody else, and addresses in use that would get lost.

use serde::Deserialize as _;
use serde_json::{Value, json};
use spiderpool_api::crd::{FINALIZER, SpiderIPPool, pool_fields};
use spiderpool_api::labels;
use spiderpool_core::admission::Families;
use spiderpool_core::admission::pool::{
    deletion_fault, in_use_fault, overlap_faults, pool_defaults, pool_faults, usable,
};
use spiderpool_core::field_error::FieldError;
use spiderpool_core::ip::IpSet;
use spiderpool_runtime::watch::Shared;

use super::in_use::AddressesInUse;
use super::known::KnownObjects;
use super::members::members_mut;
use super::response::{ReviewError, Verdict};

/// Fills in what is absent. The finalizer is not set here: the leader does, of every pool, with its mark.
pub(super) fn mutate(object: &mut Value) {
    let Ok(pool) = SpiderIPPool::deserialize(&*object) else { return };
    let defaults = pool_defaults(&pool_fields(&pool));
    let spec = [
        ("ipVersion", defaults.ip_version.map(|version| json!(version))),
        ("ips", defaults.ips.map(|ips| json!(ips))),
        ("excludeIPs", defaults.exclude_ips.map(|ips| json!(ips))),
    ];
    let spec = spec.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    // A list has the fields in order: serde takes it for the struct, the API server does not.
    let Some(members) = members_mut(object, &["spec"]) else { return };
    members.extend(spec);
    if let Some(label) = defaults.subnet_label
        && let Some(members) = members_mut(object, &["metadata", "labels"])
    {
        members.insert(labels::IPPOOL_CIDR.to_owned(), json!(label));
    }
}

/// What the decision about a pool needs.
pub(super) struct PoolValidator {
    pub(super) in_use: AddressesInUse,
    pub(super) known: Shared<KnownObjects>,
    pub(super) families: Families,
    /// Whether a pool with addresses in use may not be deleted.
    pub(super) guards_deletion: bool,
}

impl PoolValidator {
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
        let uid = before.as_ref().and_then(|before| before.metadata.uid.as_deref());
        if let (Some(before), Some(after)) = (fields_before.as_ref().and_then(usable), usable(&fields))
            && !before.difference(&after).is_empty()
        {
            faults.extend(self.lost_addresses(fields.name, uid, &after).await?);
        }
        Ok(faults.into())
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

#[cfg(test)]
mod tests {
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
