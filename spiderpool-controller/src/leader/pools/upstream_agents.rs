//! Whether upstream's agents can still allocate: they do so by writing a pool's status. With its rights an agent that the rolling
//! update has not reached yet would give an address away a second time.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::Api;
use kube::Resource as _;
use kube::api::{ApiResource, ListParams, PostParams};
use kube::core::Object;
use serde::Deserialize;
use spiderpool_api::crd::SpiderIPPool;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio::sync::Mutex;

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
    known: Mutex<Known>,
}

/// What was answered.
#[derive(Debug, Default)]
struct Known {
    /// When it was asked last, and who can.
    last: Option<(Instant, Option<ServiceAccount>)>,
    /// Since when all answers have been that none can.
    revoked_since: Option<Instant>,
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
        Self { kube, own, known: Mutex::default() }
    }

    /// What they may do now. One answer serves all pools for a few seconds.
    pub(super) async fn access(&self) -> Result<Access, ApiFailure> {
        let mut known = self.known.lock().await;
        let recent = known.last.clone().filter(|(asked, _)| asked.elapsed() < SETTLE);
        let granted = if let Some((_, granted)) = recent {
            granted
        } else {
            let granted = self.granted().await?;
            known.last = Some((Instant::now(), granted.clone()));
            granted
        };
        if let Some(account) = granted {
            known.revoked_since = None;
            return Ok(Access::Granted(account));
        }
        let since = *known.revoked_since.get_or_insert_with(Instant::now);
        let waits = SETTLE.saturating_sub(since.elapsed());
        Ok(if waits.is_zero() { Access::Revoked } else { Access::Settling(waits) })
    }

    /// The first one that can.
    async fn granted(&self) -> Result<Option<ServiceAccount>, ApiFailure> {
        for account in self.accounts().await? {
            for verb in ["update", "patch"] {
                if self.is_allowed(&account, verb).await? {
                    return Ok(Some(account));
                }
            }
        }
        Ok(None)
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
