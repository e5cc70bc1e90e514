//! SpiderCoordinator: CIDRs as networks; values that would stop every pod with an underlay NIC.

use serde::Deserialize as _;
use serde_json::{Value, json};
use spiderpool_api::crd::{CoordinatorSpec, SpiderCoordinator};

use super::response::Verdict;

/// Normalizes the CIDRs.
pub(super) fn mutate(object: &mut Value) {
    let Some(spec) = object.get_mut("spec") else { return };
    let Ok(CoordinatorSpec { settings, .. }) = CoordinatorSpec::deserialize(&*spec) else { return };
    let normalized = settings.clone().normalized();
    let Some(spec) = spec.as_object_mut() else { return };
    if normalized.hijack_cidr != settings.hijack_cidr {
        spec.insert("hijackCIDR".to_owned(), json!(normalized.hijack_cidr));
    }
    if normalized.policy_routes != settings.policy_routes {
        spec.insert("policyRoutes".to_owned(), json!(normalized.policy_routes));
    }
}

/// All faults of the spec, and what old manifests should leave out.
pub(super) fn validate(coordinator: &SpiderCoordinator) -> Verdict {
    let ignored = coordinator.spec.ignored_fields();
    let warning = |field: &str| {
        format!("spec.{field} is of an older version of Spiderpool and has no effect: leave it out")
    };
    Verdict {
        faults: coordinator.spec.settings.field_errors("spec"),
        warnings: ignored.into_iter().map(warning).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cidrs_become_networks_and_nothing_else_changes() {
        let mut object = json!({"spec": {
            "mode": "auto", "hijackCIDR": ["169.254.1.1", "10.0.0.0/8"], "unknown": 1,
            "policyRoutes": [{"dst": "10.1.2.3", "gw": "10.0.0.1"}],
        }});
        mutate(&mut object);
        assert_eq!(
            object,
            json!({"spec": {
                "mode": "auto", "hijackCIDR": ["169.254.1.1/32", "10.0.0.0/8"], "unknown": 1,
                "policyRoutes": [{"dst": "10.1.2.3/32", "gw": "10.0.0.1"}],
            }})
        );
        let mut without_spec = json!({});
        mutate(&mut without_spec);
        assert_eq!(without_spec, json!({}));
    }

    #[test]
    fn fields_of_older_versions_are_warned_about() {
        let object = json!({"metadata": {"name": "default"}, "spec": {"mode": "autp", "detectGateway": false, "hostRPFilter": 0}});
        let verdict = validate(&serde_json::from_value(object).unwrap());
        assert_eq!(verdict.faults.len(), 1);
        assert_eq!(verdict.warnings.len(), 2);
        assert_eq!(
            verdict.warnings[0],
            "spec.detectGateway is of an older version of Spiderpool and has no effect: leave it out"
        );
    }
}
