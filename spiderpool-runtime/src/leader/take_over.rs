//! Taking the Lease by force.

use super::ElectionConfig;
use super::election::LeaseAction;
use super::lease::{LeaseStore, Written};
use crate::kubernetes::{ApiFailure, Kubernetes};

/// Takes the Lease from whoever holds it. Nobody else leads until it is deleted or its duration is over.
pub async fn take_over(kube: &Kubernetes, config: ElectionConfig) -> Result<(), ApiFailure> {
    let mut lease = LeaseStore::new(kube.clone(), config);
    loop {
        let action = if lease.read().await?.is_some() { LeaseAction::Take } else { LeaseAction::Create };
        if let Written::Done(_) = lease.write(action).await? {
            return Ok(());
        }
    }
}
