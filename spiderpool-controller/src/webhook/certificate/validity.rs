//! The time in which a certificate is valid.

use k8s_openapi::jiff::Timestamp;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// In seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Validity {
    /// Of a certificate, DER.
    pub(super) fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let (from, to) = (parsed.validity().not_before, parsed.validity().not_after);
        Some(Self { not_before: from.timestamp(), not_after: to.timestamp() })
    }

    /// When it should be renewed: with a third of its time left.
    pub(super) fn renewal(self) -> i64 {
        self.not_after.saturating_sub(self.seconds() / 3)
    }

    pub(super) fn seconds(self) -> i64 {
        self.not_after.saturating_sub(self.not_before).max(0)
    }
}

/// As users read it.
pub(super) fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}
