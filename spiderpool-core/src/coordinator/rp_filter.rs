//! The reverse path filter of pods whose packets programs steer.

use super::{Dataplane, Settings, SettingsError};

/// Whether a pod can be set up with these. For what is written, and for ADD: pods that have been set up are checked and
/// deleted whatever the filter is.
pub fn check_rp_filter(dataplane: Dataplane, rp_filter: Option<u8>) -> Result<(), SettingsError> {
    match (dataplane, rp_filter) {
        (Dataplane::Ebpf, Some(1)) => Err(SettingsError::StrictRpFilter),
        _ => Ok(()),
    }
}

impl Settings {
    /// Whether they name both, a strict filter and programs. What is not set here, another layer may set.
    pub fn is_strict_with_programs(&self) -> bool {
        let dataplane = self.dataplane.as_deref().map(str::parse);
        dataplane == Some(Ok(Dataplane::Ebpf)) && self.pod_rp_filter == Some(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strict_filter_is_for_rules_alone() {
        for (dataplane, rp_filter, fits) in [
            (Dataplane::Ebpf, Some(1), false),
            (Dataplane::Ebpf, Some(0), true),
            (Dataplane::Ebpf, Some(2), true),
            (Dataplane::Ebpf, None, true),
            (Dataplane::Policy, Some(1), true),
        ] {
            assert_eq!(check_rp_filter(dataplane, rp_filter).is_ok(), fits, "{dataplane} {rp_filter:?}");
        }
    }

    /// In a network's own settings there is no dataplane, and the cluster's may be policy.
    #[test]
    fn where_it_is_written_it_is_refused_beside_the_dataplane() {
        let found = |dataplane: Option<&str>, value| {
            let settings = Settings {
                dataplane: dataplane.map(ToOwned::to_owned),
                pod_rp_filter: Some(value),
                ..Settings::default()
            };
            let found = settings.field_errors("spec");
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let refused = found(Some("ebpf"), 1);
        assert_eq!(refused.len(), 1, "{refused:?}");
        let beginning = "spec.podRPFilter: Invalid value: \"1\": is strict: ";
        assert!(
            refused[0].starts_with(beginning) && refused[0].ends_with("or dataplane policy"),
            "{refused:?}"
        );
        for (dataplane, value) in
            [(Some("ebpf"), 0), (Some("ebpf"), 2), (Some("ebpf"), -1), (Some("policy"), 1), (None, 1)]
        {
            assert_eq!(found(dataplane, value), Vec::<String>::new(), "{dataplane:?} {value}");
        }
    }
}
