//! What a service account's token says of itself. Nobody is let in by it here, so the signature does not matter.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims of a JSON Web Token.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claims(Value);

impl Claims {
    /// Of a token that is none, no claim is known.
    pub(super) fn of(token: &str) -> Self {
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        Self(payload.and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default())
    }

    /// `system:serviceaccount:NAMESPACE:NAME`.
    pub(super) fn subject(&self) -> Option<&str> {
        self.0["sub"].as_str()
    }

    /// The UID of the service account.
    pub(super) fn account_uid(&self) -> Option<&str> {
        self.0["kubernetes.io"]["serviceaccount"]["uid"].as_str()
    }

    /// For how long it was issued, by the API server's clock alone.
    pub(super) fn life(&self) -> Option<Duration> {
        let seconds = |claim: &str| self.0[claim].as_u64();
        seconds("exp")?.checked_sub(seconds("iat")?).map(Duration::from_secs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// As the API server issues it, for `life` seconds.
    pub(in crate::multus) fn token(account: &str, uid: &str, life: u64) -> String {
        let (namespace, name) = account.split_once('/').unwrap();
        let payload = json!({
            "sub": format!("system:serviceaccount:{namespace}:{name}"), "iat": 1_700_000_000, "exp": 1_700_000_000 + life,
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": name, "uid": uid}},
        });
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload.to_string()))
    }

    #[test]
    fn a_token_says_whose_it_is_and_for_how_long() {
        let claims = Claims::of(&token("spiderpool/spiderpool-multus", "u1", 3600));
        assert_eq!(claims.subject(), Some("system:serviceaccount:spiderpool:spiderpool-multus"));
        assert_eq!((claims.account_uid(), claims.life()), (Some("u1"), Some(Duration::from_hours(1))));
        for text in ["", "opaque", "a.b.c", "e30.e30.e30"] {
            let claims = Claims::of(text);
            assert_eq!((claims.subject(), claims.account_uid(), claims.life()), (None, None, None), "{text}");
        }
    }
}
