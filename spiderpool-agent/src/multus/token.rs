//! The token by which Multus asks the API server. It belongs to no pod, so that it outlives the agent's: Multus works while
//! agents are replaced.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio::time::Instant;

/// How often it is replaced: more often than it expires, for the sake of a service account that was made again.
const PERIOD: Duration = Duration::from_hours(1);
/// How long until the next attempt after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The token, once there is one.
pub(super) struct Token {
    namespace: String,
    account: String,
    seconds: u32,
    current: Option<String>,
    next: Instant,
    pause: Duration,
}

impl Token {
    pub(super) fn new(namespace: &str, account: &str, seconds: u32) -> Self {
        let (namespace, account) = (namespace.to_owned(), account.to_owned());
        Self { namespace, account, seconds, current: None, next: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Namespace and token.
    pub(super) fn current(&self) -> Option<(&str, &str)> {
        self.current.as_deref().map(|token| (&*self.namespace, token))
    }

    /// Asks for a new one if it is time; whether one came.
    pub(super) async fn refresh(&mut self, kube: &Kubernetes) -> Result<bool, ApiFailure> {
        if Instant::now() < self.next {
            return Ok(false);
        }
        match self.request(kube).await {
            Ok(token) => {
                self.current = Some(token).filter(|token| !token.is_empty());
                (self.next, self.pause) = (Instant::now() + PERIOD, FIRST_PAUSE);
                Ok(true)
            }
            Err(error) => {
                self.next = Instant::now() + self.pause;
                self.pause = self.pause.saturating_mul(2).min(backoff::MAX_PAUSE);
                Err(error)
            }
        }
    }

    async fn request(&self, kube: &Kubernetes) -> Result<String, ApiFailure> {
        let accounts: Api<ServiceAccount> = Api::namespaced(kube.client(), &self.namespace);
        let spec = TokenRequestSpec {
            expiration_seconds: Some(i64::from(self.seconds)),
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let parameters = PostParams::default();
        let answer = kube.write(accounts.create_token_request(&self.account, &parameters, &request)).await?;
        Ok(answer.status.map(|status| status.token).unwrap_or_default())
    }
}
