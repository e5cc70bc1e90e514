//! What a failed request means for its caller.

use std::time::Duration;

use hyper::StatusCode;
use thiserror::Error;

/// A request that did not succeed.
#[derive(Debug, Error)]
pub enum ApiFailure {
    /// The API server refused the request.
    #[error("API server: {0}")]
    Refused(#[source] Box<kube::core::Status>),
    /// There was no usable response: whether the request took effect is unknown.
    #[error("API server unreachable: {0}")]
    Unreachable(String),
    /// There was no response in time: whether the request took effect is unknown.
    #[error("API server did not answer within {0:?}")]
    Timeout(Duration),
    /// The API server has refused the request again and again, for the time being. Whether an earlier attempt took effect is
    /// unknown.
    #[error(
        "API server answers {status} and nothing else within {limit:?}: it is overloaded or not ready, see its log and \
         its metrics"
    )]
    Busy {
        /// Its last answer.
        status: StatusCode,
        /// How long it was asked.
        limit: Duration,
    },
    /// The request was not sent: nobody waits for what comes of it.
    #[error("the request to the API server was not sent: its caller is gone")]
    Abandoned,
}

impl From<kube::Error> for ApiFailure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Refused(status),
            other => Self::Unreachable(chain(&other)),
        }
    }
}

impl ApiFailure {
    fn code(&self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status.code),
            Self::Unreachable(_) | Self::Timeout(_) | Self::Busy { .. } | Self::Abandoned => None,
        }
    }

    /// The object does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object of this name does not exist, of a kind that the API server serves: else its response names no object.
    pub fn is_missing(&self, name: &str) -> bool {
        let names =
            |status: &kube::core::Status| status.details.as_ref().is_some_and(|details| details.name == name);
        matches!(self, Self::Refused(status) if self.is_not_found() && names(status))
    }

    /// The service account lacks a right, or something refuses what was asked for.
    pub fn is_forbidden(&self) -> bool {
        self.code() == Some(403)
    }

    /// The same for an object of this API group.
    pub fn is_forbidden_in(&self, group: &str) -> bool {
        let is_of = |status: &kube::core::Status| {
            status.details.as_ref().is_some_and(|details| details.group == group)
        };
        matches!(self, Self::Refused(status) if self.is_forbidden() && is_of(status))
    }

    /// The name is taken.
    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::Refused(status) if status.is_already_exists())
    }

    /// The object is not what the precondition says.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && !self.is_already_exists()
    }

    /// The object or patch is invalid, also where a test of a JSON patch has failed.
    pub fn is_invalid(&self) -> bool {
        self.code() == Some(422)
    }

    /// Whether the request took effect is unknown.
    pub fn is_ambiguous(&self) -> bool {
        !matches!(self, Self::Abandoned) && self.code().is_none_or(|code| code >= 500)
    }

    /// The same request may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.is_ambiguous() || self.code() == Some(429)
    }
}

/// The error with its sources, each once: "error trying to connect" alone does not help.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;
    use kube::core::response::StatusDetails;

    use super::*;

    fn refused(code: u16, reason: &str) -> ApiFailure {
        ApiFailure::Refused(Status::failure("no", reason).with_code(code).boxed())
    }

    #[test]
    fn already_exists_is_not_a_conflict() {
        assert!(refused(409, "AlreadyExists").is_already_exists());
        assert!(!refused(409, "AlreadyExists").is_conflict());
        assert!(refused(409, "Conflict").is_conflict());
    }

    fn about_machine(code: u16, reason: &str) -> ApiFailure {
        let details = StatusDetails {
            name: "db".to_owned(),
            group: "kubevirt.io".to_owned(),
            kind: "virtualmachines".to_owned(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        };
        let status = Status::failure("no", reason).with_code(code).with_details(details);
        ApiFailure::Refused(status.boxed())
    }

    #[test]
    fn a_right_that_is_missing_is_one_on_a_group() {
        let forbidden = about_machine(403, "Forbidden");
        assert!(forbidden.is_forbidden_in("kubevirt.io") && !forbidden.is_forbidden_in(""));
        assert!(!about_machine(404, "NotFound").is_forbidden_in("kubevirt.io"));
        assert!(!refused(403, "Forbidden").is_forbidden_in("kubevirt.io"));
    }

    #[test]
    fn a_missing_object_is_not_a_missing_kind() {
        let of_object = about_machine(404, "NotFound");
        assert!(of_object.is_missing("db") && !of_object.is_missing("web"));
        let of_kind = refused(404, "NotFound");
        assert!(of_kind.is_not_found() && !of_kind.is_missing("db"));
    }

    #[test]
    fn only_a_response_below_500_is_unambiguous() {
        let limit = Duration::from_secs(1);
        assert!(ApiFailure::Timeout(limit).is_ambiguous());
        assert!(ApiFailure::Busy { status: StatusCode::TOO_MANY_REQUESTS, limit }.is_ambiguous());
        assert!(refused(504, "Timeout").is_ambiguous());
        assert!(!refused(403, "Forbidden").is_ambiguous());
        assert!(
            refused(429, "TooManyRequests").is_retryable() && !refused(429, "TooManyRequests").is_ambiguous()
        );
        assert!(!ApiFailure::Abandoned.is_ambiguous() && !ApiFailure::Abandoned.is_retryable());
    }
}
