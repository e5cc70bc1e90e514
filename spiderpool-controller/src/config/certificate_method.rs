//! Who makes the webhooks' certificate.

use std::str::FromStr;

/// Where the certificate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateMethod {
    /// The controllers make it.
    Auto,
    /// The chart's values hold it.
    Provided,
    /// cert-manager makes it.
    CertManager,
}

impl FromStr for CertificateMethod {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "provided" => Ok(Self::Provided),
            "certmanager" => Ok(Self::CertManager),
            other => Err(format!("{other:?} is unknown: use auto, provided or certmanager")),
        }
    }
}
