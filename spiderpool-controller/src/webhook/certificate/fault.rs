//! Why the API server would not take a certificate.

use thiserror::Error;

use super::validity::time;

/// What is wrong with the Secret.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CertificateFault {
    #[error("there is no such Secret")]
    NoSecret,
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("{0} is not PEM, or holds no certificate")]
    NoCertificate(&'static str),
    #[error("{key} holds no private key that can be used: {cause}")]
    Key { key: &'static str, cause: String },
    #[error("tls.key is not the key of tls.crt")]
    OtherKey,
    #[error("tls.crt has expired at {}", time(*.0))]
    Expired(i64),
    #[error("tls.crt is not valid before {}", time(*.0))]
    NotYetValid(i64),
    #[error("tls.crt is not for {0}, by which the API server calls the webhooks")]
    Name(String),
    #[error("tls.crt is not signed by a CA of ca.crt")]
    UnknownIssuer,
    #[error("tls.crt is the certificate of a CA: give one that a CA has signed for the server")]
    IsAuthority,
    #[error("ca.crt is the server's own certificate: give the certificate of the CA that has signed it")]
    LeafAsAuthority,
    #[error("tls.crt cannot be used: {0}")]
    Other(String),
}

impl CertificateFault {
    /// The reason of the Event. Events of one reason are one Event, with the words of the first.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NoSecret => "NoCertificateSecret",
            Self::Missing(_) => "IncompleteCertificate",
            Self::NoCertificate(_) | Self::Key { .. } | Self::OtherKey | Self::Other(_) => {
                "InvalidCertificate"
            }
            Self::Expired(_) => "CertificateExpired",
            Self::NotYetValid(_) => "CertificateNotYetValid",
            Self::Name(_) => "CertificateOfOtherName",
            Self::UnknownIssuer | Self::IsAuthority | Self::LeafAsAuthority => "CertificateOfOtherAuthority",
        }
    }
}
