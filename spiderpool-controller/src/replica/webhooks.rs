//! The webhooks as environment and configuration file have them.

use spiderpool_runtime::leader::Role;
use tokio::sync::watch;

use crate::config::{ConfigFile, Environment};
use crate::webhook::{CertificateSettings, Webhooks};

/// How a replica serves them.
pub(super) fn configured(
    environment: &Environment,
    file: &ConfigFile,
    role: watch::Receiver<Role>,
) -> Webhooks {
    Webhooks {
        port: environment.webhook.webhook_port,
        certificate: certificate(environment),
        families: file.families(),
        guards_deletion: file.guards_deletion(),
        subnets: file.subnets().enabled,
        networks: environment.multus_config_enabled,
        injects_resources: file.injects_resources(),
        role,
        pod: environment.pod_name.clone(),
    }
}

/// The certificate, which the leader has a part in too.
pub(super) fn certificate(environment: &Environment) -> CertificateSettings {
    let webhook = environment.webhook.clone();
    CertificateSettings {
        method: webhook.method,
        secret: webhook.secret,
        namespace: environment.pod_namespace.clone(),
        service: webhook.controller_name,
        domain: webhook.domain,
        extra_names: webhook.extra_names.0,
        extra_addresses: webhook.extra_addresses.0,
        validity: webhook.validity,
        ca_validity: webhook.ca_validity,
    }
}
