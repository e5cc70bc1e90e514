//! How failures look on the wire: a handler's is a JSON string, a bad request's is an object with code and message.

use std::fmt::Display;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use spiderpool_core::error_list::{MAX_TEXT, cut};

/// Code of a [`ErrorResponse`]: a required member or parameter is missing.
pub(super) const REQUIRED: u16 = 602;
/// Code of a [`ErrorResponse`]: a member or parameter has the wrong type or form.
pub(super) const INVALID: u16 = 601;

/// A request that never reached its handler.
#[derive(Debug)]
pub(super) struct ErrorResponse {
    status: StatusCode,
    body: ErrorBody,
}

#[derive(Debug, Serialize)]
struct ErrorBody {
    code: u16,
    message: String,
}

impl ErrorResponse {
    /// `code` is the status, or one of the 600s for a violated schema.
    pub(super) fn new(status: StatusCode, code: u16, message: impl Into<String>) -> Self {
        Self { status, body: ErrorBody { code, message: message.into() } }
    }

    #[cfg(test)]
    pub(super) fn code(&self) -> u16 {
        self.body.code
    }

    #[cfg(test)]
    pub(super) fn message(&self) -> &str {
        &self.body.message
    }
}

impl IntoResponse for ErrorResponse {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// A handler's failure: the plugin shows the text to the user.
#[derive(Debug)]
pub(super) struct Failed {
    status: StatusCode,
    text: String,
}

impl Failed {
    /// With another status than 500.
    pub(super) fn with_status(status: StatusCode, error: impl Display) -> Self {
        Self { status, text: cut(error.to_string(), MAX_TEXT) }
    }
}

impl<E: std::error::Error> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::with_status(StatusCode::INTERNAL_SERVER_ERROR, error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.status, Json(self.text)).into_response()
    }
}
