//! Whether upstream's agents can still allocate: they do so by writing a pool's status. With its rights an agent that the rolling
//! update has not reached yet would give an address away a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::Resource as _;
use kube::api::{ApiResource, ListParams, PostParams};
use kube::core::Object;
use serde::Deserialize;
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};

/// The label of agents' pods, upstream's and ours, and its value.
const COMPONENT: &str = "app.kubernetes.io/component=spiderpool-agent";
/// Each API server learns of changed rights by a watch of its own: a write that one of them has let pass is not seen by an answer
/// of another one.
const SETTLE: Duration = Duration::from_secs(5);

/// A service account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ServiceAccount {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What agents may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Access {
    /// None of them can write the status of a pool.
    Revoked,
    /// So it is since a moment ago: it holds everywhere after this time.
    Settling(Duration),
    /// This one can.
    Granted(ServiceAccount),
}

/// Asks the API server.
pub(super) struct UpstreamAgents {
    kube: Kubernetes,
    own: ServiceAccount,
    /// Since when all answers have been that none can.
    revoked_since: Mutex<Option<Instant>>,
}

/// What is read of an agent's pod.
#[derive(Debug, Clone, Deserialize)]
struct AgentSpec {
    #[serde(rename = "serviceAccountName", default)]
    service_account: String,
}

impl UpstreamAgents {
    /// `own` is the service account of the agents of this installation, which those of upstream have had before.
    pub(super) fn new(kube: Kubernetes, own: ServiceAccount) -> Self {
        Self { kube, own, revoked_since: Mutex::default() }
    }

    /// What they may do now.
    pub(super) async fn access(&self) -> Result<Access, ApiFailure> {
        for account in self.accounts().await? {
            for verb in ["update", "patch"] {
                if self.is_allowed(&account, verb).await? {
                    self.settle(None);
                    return Ok(Access::Granted(account));
                }
            }
        }
        let waits = SETTLE.saturating_sub(self.settle(Some(Instant::now())));
        Ok(if waits.is_zero() { Access::Revoked } else { Access::Settling(waits) })
    }

    /// For how long it has been so.
    fn settle(&self, now: Option<Instant>) -> Duration {
        let mut since = self.revoked_since.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(now) = now else {
            *since = None;
            return Duration::ZERO;
        };
        now.saturating_duration_since(*since.get_or_insert(now))
    }

    /// Those of this installation's agents, and of all pods that look like agents: upstream may have been installed into another
    /// namespace.
    async fn accounts(&self) -> Result<BTreeSet<ServiceAccount>, ApiFailure> {
        let resource = ApiResource::erase::<k8s_openapi::api::core::v1::Pod>(&());
        let pods = Api::<Object<AgentSpec, serde::de::IgnoredAny>>::all_with(self.kube.client(), &resource);
        let account = |pod: Object<AgentSpec, _>| ServiceAccount {
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.spec.service_account,
        };
        let found = self.kube.pages_by(&pods, ListParams::default().labels(COMPONENT), account).await?;
        let named = found.into_iter().filter(|account| !account.name.is_empty());
        Ok(named.chain([self.own.clone()]).collect())
    }

    async fn is_allowed(&self, account: &ServiceAccount, verb: &str) -> Result<bool, ApiFailure> {
        let ServiceAccount { namespace, name } = account;
        let groups = ["system:authenticated", "system:serviceaccounts"].map(ToOwned::to_owned);
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{name}")),
                groups: Some(groups.into_iter().chain([of_namespace]).collect()),
                resource_attributes: Some(ResourceAttributes {
                    group: Some(SpiderIPPool::group(&()).into_owned()),
                    resource: Some(SpiderIPPool::plural(&()).into_owned()),
                    subresource: Some("status".to_owned()),
                    verb: Some(verb.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let reviews = Api::<SubjectAccessReview>::all(self.kube.client());
        let answer = self.kube.read(reviews.create(&PostParams::default(), &review)).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}
