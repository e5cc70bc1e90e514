//! Whose certificate, and for how long.

use std::net::IpAddr;
use std::time::Duration;

use crate::config::CertificateMethod;

/// What the certificate has to be.
#[derive(Debug, Clone)]
pub(crate) struct CertificateSettings {
    pub(crate) method: CertificateMethod,
    /// The Secret and its namespace.
    pub(crate) secret: String,
    pub(crate) namespace: String,
    /// The Service; the webhooks' configurations have its name.
    pub(crate) service: String,
    /// The cluster's DNS domain.
    pub(crate) domain: String,
    pub(crate) extra_names: Vec<String>,
    pub(crate) extra_addresses: Vec<IpAddr>,
    /// Of the certificate.
    pub(crate) validity: Duration,
    /// Of its CA.
    pub(crate) ca_validity: Duration,
}

impl CertificateSettings {
    /// By which name the API server calls a Service.
    pub(super) fn service_name(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// All names that a certificate of ours has.
    pub(super) fn names(&self) -> Vec<String> {
        let service = self.service_name();
        let qualified = format!("{service}.{}", self.domain);
        let mut names = vec![format!("{}.{}", self.service, self.namespace), service, qualified];
        names.extend(self.extra_names.iter().cloned());
        names.extend(self.extra_addresses.iter().map(ToString::to_string));
        names
    }

    /// The names without which a certificate is not taken.
    pub(super) fn required_names(&self) -> Vec<String> {
        match self.method {
            CertificateMethod::Auto => self.names(),
            CertificateMethod::Provided | CertificateMethod::CertManager => vec![self.service_name()],
        }
    }
}

#[cfg(test)]
pub(super) fn example(method: CertificateMethod) -> CertificateSettings {
    CertificateSettings {
        method,
        secret: "certs".into(),
        namespace: "net".into(),
        service: "controller".into(),
        domain: "cluster.local".into(),
        extra_names: vec!["extra.test".into()],
        extra_addresses: vec!["127.0.0.1".parse().unwrap_or_else(|_| unreachable!())],
        validity: Duration::from_hours(2),
        ca_validity: Duration::from_hours(4),
    }
}
