//! Whose certificate, and for how long.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;

use super::fault::CertificateFault;
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

    /// The Secret, as Events name it.
    pub(super) fn secret_reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Secret".to_owned()),
            name: Some(self.secret.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectReference::default()
        }
    }

    /// What is wrong, and what to do.
    pub(super) fn describe(&self, fault: &CertificateFault) -> String {
        let remedy = match self.method {
            CertificateMethod::Auto if *fault == CertificateFault::NoSecret => {
                "helm upgrade makes the Secret again"
            }
            CertificateMethod::Auto => "it is made anew",
            CertificateMethod::Provided => "correct spiderpoolController.tls.provided, then helm upgrade",
            CertificateMethod::CertManager => "see the Certificate of this name and the log of cert-manager",
        };
        let Self { namespace, secret, .. } = self;
        format!("the webhooks' certificate in Secret {namespace}/{secret} cannot be used: {fault}: {remedy}")
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
