//! The token by which Multus asks the API server. It belongs to no pod, so that it outlives the agent's: Multus works while
//! agents are replaced, and on a node that has no agent any more.

use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use spiderpool_runtime::backoff;
use spiderpool_runtime::kubernetes::{ApiFailure, Kubernetes};
use tokio::time::Instant;

use super::claims::Claims;

/// How long it is asked for. The API server may give less.
const SECONDS: i64 = 365 * 24 * 3600;
/// How often the service account is looked at: tokens of one that was made again are refused.
const CHECK: Duration = Duration::from_mins(5);
/// The life of a token that does not say it.
const UNKNOWN_LIFE: Duration = Duration::from_hours(1);
/// How long until the next attempt after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The token, once there is one.
pub(super) struct Token {
    namespace: String,
    account: String,
    issued: Option<Issued>,
    next: Instant,
    pause: Duration,
}

struct Issued {
    token: String,
    account_uid: Option<String>,
    /// When a third of its life has passed.
    renew_at: Instant,
}

/// What a call of [`Token::refresh`] has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refreshed {
    /// It was not time to look.
    NotDue,
    /// The token is good.
    Good,
    /// There is a new one.
    New,
    /// The API server has answered without one.
    Empty,
}

impl Token {
    pub(super) fn new(namespace: &str, account: &str) -> Self {
        let (namespace, account) = (namespace.to_owned(), account.to_owned());
        Self { namespace, account, issued: None, next: Instant::now(), pause: FIRST_PAUSE }
    }

    /// Namespace and token.
    pub(super) fn current(&self) -> Option<(&str, &str)> {
        self.issued.as_ref().map(|issued| (&*self.namespace, &*issued.token))
    }

    /// Looks whether it is good if it is time to, and asks for a new one if it is not.
    pub(super) async fn refresh(&mut self, kube: &Kubernetes) -> Result<Refreshed, ApiFailure> {
        if Instant::now() < self.next {
            return Ok(Refreshed::NotDue);
        }
        let refreshed = self.renew(kube).await;
        if refreshed.as_ref().is_ok_and(|refreshed| *refreshed != Refreshed::Empty) {
            let check = Instant::now() + CHECK;
            self.next = self.issued.as_ref().map_or(check, |issued| check.min(issued.renew_at));
            self.pause = FIRST_PAUSE;
        } else {
            self.next = Instant::now() + self.pause;
            self.pause = self.pause.saturating_mul(2).min(backoff::MAX_PAUSE);
        }
        refreshed
    }

    async fn renew(&mut self, kube: &Kubernetes) -> Result<Refreshed, ApiFailure> {
        let accounts: Api<ServiceAccount> = Api::namespaced(kube.client(), &self.namespace);
        if let Some(issued) = &self.issued
            && Instant::now() < issued.renew_at
        {
            let account = kube.read(accounts.get_metadata(&self.account)).await?;
            if account.metadata.uid == issued.account_uid {
                return Ok(Refreshed::Good);
            }
        }
        let spec = TokenRequestSpec { expiration_seconds: Some(SECONDS), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let parameters = PostParams::default();
        let answer = kube.write(accounts.create_token_request(&self.account, &parameters, &request)).await?;
        let token = answer.status.map(|status| status.token).filter(|token| !token.is_empty());
        let Some(token) = token else { return Ok(Refreshed::Empty) };
        let claims = Claims::of(&token);
        let renew_at = Instant::now() + claims.life().unwrap_or(UNKNOWN_LIFE).max(FIRST_PAUSE * 3) / 3;
        let account_uid = claims.account_uid().map(str::to_owned);
        self.issued = Some(Issued { token, account_uid, renew_at });
        Ok(Refreshed::New)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::super::claims;
    use super::*;

    /// The service account of an API server that issues tokens for so many seconds.
    #[derive(Clone)]
    struct Account(Arc<Mutex<(&'static str, u64)>>);

    impl Account {
        fn answer(&self, method: &Method) -> Value {
            let (uid, life) = *self.0.lock().unwrap();
            if method == Method::GET {
                let metadata = json!({"name": "m", "namespace": "n", "uid": uid});
                return json!({"apiVersion": "v1", "kind": "PartialObjectMetadata", "metadata": metadata});
            }
            let status = json!({"token": claims::tests::token("n/m", uid, life), "expirationTimestamp": "2030-01-01T00:00:00Z"});
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {}, "spec": {"audiences": []}, "status": status})
        }
    }

    fn api_server(life: u64) -> (Account, Kubernetes) {
        let account = Account(Arc::new(Mutex::new(("one", life))));
        let answering = account.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let answer = answering.answer(request.method()).to_string();
            async move { Ok::<_, std::io::Error>(Response::new(Body::from(answer.into_bytes()))) }
        });
        (account, Kubernetes::new(Client::new(service, "default")))
    }

    async fn after(token: &mut Token, kube: &Kubernetes, pause: Duration) -> Refreshed {
        tokio::time::advance(pause).await;
        token.refresh(kube).await.unwrap()
    }

    /// A node may be without agent for long.
    #[tokio::test(start_paused = true)]
    async fn a_token_is_renewed_when_a_third_of_its_life_has_passed() {
        let (_account, kube) = api_server(1800);
        let mut token = Token::new("n", "m");
        assert_eq!(after(&mut token, &kube, Duration::ZERO).await, Refreshed::New);
        assert_eq!(after(&mut token, &kube, Duration::from_mins(4)).await, Refreshed::NotDue);
        assert_eq!(after(&mut token, &kube, Duration::from_mins(1)).await, Refreshed::Good);
        assert_eq!(after(&mut token, &kube, Duration::from_mins(5)).await, Refreshed::New);
    }

    /// Its tokens are refused at once: no pod of the node would start.
    #[tokio::test(start_paused = true)]
    async fn a_service_account_that_was_made_again_gets_a_new_token_within_minutes() {
        let (account, kube) = api_server(31_536_000);
        let mut token = Token::new("n", "m");
        token.refresh(&kube).await.unwrap();
        assert_eq!(after(&mut token, &kube, CHECK).await, Refreshed::Good);
        account.0.lock().unwrap().0 = "two";
        assert_eq!(after(&mut token, &kube, CHECK).await, Refreshed::New);
        let (_, current) = token.current().unwrap();
        assert_eq!(Claims::of(current).account_uid(), Some("two"));
    }
}
