//! JSON bodies, also on GET and DELETE, with upstream's answers to bad ones.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::de::DeserializeOwned;
use serde_json::Value;
use spiderpool_api::agent::coordinator::GetCoordinatorArgs;
use spiderpool_api::agent::dataplane::{RegisterNics, UnregisterNics};
use spiderpool_api::agent::gc::GcArgs;
use spiderpool_api::agent::ipam::{IpamAddArgs, IpamBatchDelArgs, IpamDelArgs};

use super::error::{ErrorResponse, INVALID, REQUIRED};

/// The decoded body.
pub(super) struct JsonBody<T>(pub(super) T);

/// What a body is called where something is wrong with it.
pub(super) trait Parameter {
    /// As in upstream's description of the API.
    const NAME: &'static str;
    /// The members that must be there, in the order in which they are missed.
    const REQUIRED: &'static [&'static str];
}

impl Parameter for IpamAddArgs {
    const NAME: &'static str = "ipam-add-args";
    const REQUIRED: &'static [&'static str] =
        &["containerID", "ifName", "netNamespace", "podNamespace", "podName", "podUID"];
}

impl Parameter for IpamDelArgs {
    const NAME: &'static str = "ipam-del-args";
    const REQUIRED: &'static [&'static str] = &["containerID", "ifName", "podNamespace", "podName", "podUID"];
}

impl Parameter for IpamBatchDelArgs {
    const NAME: &'static str = "ipam-batch-del-args";
    const REQUIRED: &'static [&'static str] = &["containerID", "podNamespace", "podName", "podUID"];
}

impl Parameter for GetCoordinatorArgs {
    const NAME: &'static str = "get-coordinator-config";
    const REQUIRED: &'static [&'static str] = &["podName", "podNamespace"];
}

impl Parameter for RegisterNics {
    const NAME: &'static str = "register-nics";
    const REQUIRED: &'static [&'static str] =
        &["containerID", "network", "ifName", "podNamespace", "podName", "netns", "nics", "routeHints"];
}

impl Parameter for UnregisterNics {
    const NAME: &'static str = "unregister-nics";
    const REQUIRED: &'static [&'static str] = &["containerID", "network", "ifName"];
}

impl Parameter for GcArgs {
    const NAME: &'static str = "gc-args";
    const REQUIRED: &'static [&'static str] = &["network", "validAttachments"];
}

impl<S: Send + Sync, T: DeserializeOwned + Parameter> FromRequest<S> for JsonBody<T> {
    type Rejection = ErrorResponse;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, ErrorResponse> {
        let content_type = request.headers().get(CONTENT_TYPE).cloned();
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|error| ErrorResponse::new(StatusCode::BAD_REQUEST, 400, error.to_string()))?;
        if let Some(media) =
            content_type.as_ref().and_then(|value| value.to_str().ok()).filter(|m| !is_json(m))
        {
            let message = format!("unsupported media type {media:?}, only [application/json] are allowed");
            return Err(ErrorResponse::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, 415, message));
        }
        decode(&bytes).map(Self)
    }
}

fn is_json(media: &str) -> bool {
    media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

fn decode<T: DeserializeOwned + Parameter>(bytes: &[u8]) -> Result<T, ErrorResponse> {
    if bytes.is_empty() {
        let message = format!("{} in body is required", T::NAME);
        return Err(ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, REQUIRED, message));
    }
    let mut value: Value = serde_json::from_slice(bytes).map_err(|error| {
        ErrorResponse::new(StatusCode::BAD_REQUEST, 400, format!("body is not JSON: {error}"))
    })?;
    remove_nulls(&mut value);
    if let Some(field) = value.as_object().and_then(|members| missing::<T>(members)) {
        let message = format!("{}.{field} in body is required", T::NAME);
        return Err(ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, REQUIRED, message));
    }
    serde_json::from_value(value).map_err(|error| {
        let message = format!("{} in body is invalid: {error}", T::NAME);
        ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, INVALID, message)
    })
}

/// The first required member that is not there.
fn missing<T: Parameter>(members: &serde_json::Map<String, Value>) -> Option<&'static str> {
    T::REQUIRED.iter().copied().find(|field| !members.contains_key(*field))
}

/// A member that is null is as good as missing.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(remove_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(remove_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::response::IntoResponse;

    #[track_caller]
    fn check(body: &str, status: u16) {
        let problem = decode::<IpamDelArgs>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.into_response().status().as_u16(), status, "{body}");
    }

    #[test]
    fn bad_bodies_are_told_apart() {
        check("", 422);
        check("{", 400);
        check("{}", 422);
        check("[]", 422);
        check(r#"{"containerID":1,"ifName":"e","podNamespace":"n","podName":"p","podUID":""}"#, 422);
        check(r#"{"containerID":null,"ifName":"e","podNamespace":"n","podName":"p","podUID":""}"#, 422);
        check(r#"{"containerID":"../c","ifName":"e","podNamespace":"n","podName":"p","podUID":""}"#, 422);
    }

    #[test]
    fn what_is_missing_or_null_is_named_with_its_body() {
        for body in ["{}", r#"{"containerID":null}"#] {
            let problem = decode::<IpamDelArgs>(body.as_bytes()).unwrap_err();
            assert_eq!(problem.code(), REQUIRED);
            assert_eq!(problem.message(), "ipam-del-args.containerID in body is required", "{body}");
        }
    }

    #[test]
    fn what_is_no_name_is_said_with_its_body() {
        let body = r#"{"containerID":"c","ifName":"much-too-long-a-name","podNamespace":"n","podName":"p","podUID":""}"#;
        let problem = decode::<IpamDelArgs>(body.as_bytes()).unwrap_err();
        assert_eq!(problem.code(), INVALID);
        let start = "ipam-del-args in body is invalid: interface name \"much-too-long-a-name\" is invalid: ";
        assert!(problem.message().starts_with(start), "{}", problem.message());
    }

    /// The lists of required members are those of the types.
    #[test]
    fn missing_required_members_are_named() {
        fn check<T: DeserializeOwned + Parameter>(whole: &Value) {
            assert!(decode::<T>(whole.to_string().as_bytes()).is_ok(), "{whole}");
            for member in whole.as_object().unwrap().keys() {
                let mut part = whole.clone();
                part.as_object_mut().unwrap().remove(member);
                let problem = decode::<T>(part.to_string().as_bytes()).err();
                let code = problem.as_ref().map(ErrorResponse::code);
                assert_eq!(code, Some(REQUIRED), "{}.{member}: {problem:?}", T::NAME);
            }
        }
        let del =
            serde_json::json!({"containerID":"c","ifName":"e","podNamespace":"n","podName":"p","podUID":""});
        check::<IpamDelArgs>(&del);
        let mut add = del.clone();
        add["netNamespace"] = "/n".into();
        check::<IpamAddArgs>(&add);
        let mut batch = del.clone();
        batch.as_object_mut().unwrap().remove("ifName");
        check::<IpamBatchDelArgs>(&batch);
        check::<GetCoordinatorArgs>(&serde_json::json!({"podNamespace":"n","podName":"p"}));
        check::<GcArgs>(&serde_json::json!({"network":"w","validAttachments":[]}));
        check::<UnregisterNics>(&serde_json::json!({"containerID":"c","network":"w","ifName":"e"}));
    }

    #[test]
    fn empty_values_and_unknown_members_are_accepted() {
        let body =
            r#"{"containerID":"c","ifName":"e","podNamespace":"n","podName":"p","podUID":"","more":1}"#;
        assert_eq!(decode::<IpamDelArgs>(body.as_bytes()).unwrap().container_id.as_str(), "c");
    }

    #[test]
    fn charset_is_no_other_type() {
        assert!(is_json("application/json; charset=utf-8"));
        assert!(!is_json("text/plain"));
    }
}
