//! A SpiderSubnet as the API server has it at this moment: the leader writes into its status what an application's pool gets,
//! and then the pool, before a watch has told of it.

use std::time::Duration;

use kube::Api;
use spiderpool_api::crd::SpiderSubnet;
use spiderpool_runtime::kubernetes::Kubernetes;
use tokio::sync::Semaphore;

use super::response::ReviewError;

/// Looks at a time: whoever reaches the port may have us look.
const LOOKS: usize = 8;
/// Shorter than the deadline of a review, so that the answer says what has taken so long.
const LIMIT: Duration = Duration::from_secs(3);

/// Reads subnets.
pub(super) struct StoredSubnets {
    kube: Kubernetes,
    looks: Semaphore,
}

impl StoredSubnets {
    pub(super) fn new(kube: Kubernetes) -> Self {
        Self { kube, looks: Semaphore::new(LOOKS) }
    }

    /// The subnet of this name, if there is one.
    pub(super) async fn get(&self, name: &str) -> Result<Option<SpiderSubnet>, ReviewError> {
        let api = Api::<SpiderSubnet>::all(self.kube.client());
        let read = async {
            // The semaphore is never closed.
            let _place = self.looks.acquire().await;
            self.kube.read(api.get_opt(name)).await
        };
        match tokio::time::timeout(LIMIT, read).await {
            Ok(read) => read.map_err(|source| ReviewError::Subnet { subnet: name.to_owned(), source }),
            Err(_) => Err(ReviewError::LateSubnet { subnet: name.to_owned(), limit: LIMIT }),
        }
    }
}
