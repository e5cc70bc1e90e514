//! Names and annotations.

use crate::field_error::FieldError;
use crate::multus::annotations::{
    CNI_CONFIG_NAME, CNI_VERSION, CNI_VERSIONS, CR_NAME, NETWORK_RESOURCE_INJECT, RDMA_RESOURCE_INJECT,
};
use crate::multus::{InjectionProblem, MultusFields};
use crate::names::is_subdomain;

/// Where an annotation is.
pub(super) fn path(key: &str) -> String {
    format!("metadata.annotations[{key}]")
}

pub(super) fn faults(fields: &MultusFields<'_>) -> Vec<FieldError> {
    let mut faults = Vec::new();
    if let Some(name) = fields.annotation(CR_NAME).filter(|name| !is_subdomain(name)) {
        let detail =
            "must be a DNS-1123 subdomain: lower case letters, digits, '-' and '.', 253 characters at most";
        faults.push(FieldError::invalid(path(CR_NAME), name, detail));
    }
    if let Some(name) = fields.annotation(CNI_CONFIG_NAME).filter(|name| !is_network_name(name)) {
        let detail = "must begin with a letter or digit, and hold letters, digits, '_', '.' and '-' only";
        faults.push(FieldError::invalid(path(CNI_CONFIG_NAME), name, detail));
    }
    if let Some(version) = fields.annotation(CNI_VERSION).filter(|version| !CNI_VERSIONS.contains(version)) {
        faults.push(FieldError::not_supported(path(CNI_VERSION), version, CNI_VERSIONS));
    }
    faults.extend(injection_faults(fields, RDMA_RESOURCE_INJECT));
    faults.extend(injection_faults(fields, NETWORK_RESOURCE_INJECT));
    faults
}

/// CNI specification 1.1.0, section 1: what libcni takes as the name of a network.
fn is_network_name(name: &str) -> bool {
    name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

/// Pods that get the network by its resource name no pools of their own.
fn injection_faults(fields: &MultusFields<'_>, key: &str) -> Option<FieldError> {
    let value = fields.annotation(key)?;
    let problem = InjectionProblem::of(fields, key)?;
    Some(match problem {
        InjectionProblem::Type(_) => FieldError::forbidden(path(key), format!("{problem}: remove it")),
        _ => FieldError::invalid(path(key), value, problem.to_string()),
    })
}
