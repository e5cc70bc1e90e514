//! Annotations of a pod that look like ours and are not: a misspelt key would pass in silence.

use std::collections::BTreeMap;

use super::annotation_key as key;

const PREFIX: &str = "ipam.spidernet.io/";

/// What a pod may say. The last two count for pools that are made for an application.
const KNOWN: [&str; 8] = [
    key::IPPOOLS,
    key::IPPOOL,
    key::SUBNETS,
    key::SUBNET,
    key::ROUTES,
    key::DEFAULT_ROUTE_NIC,
    key::IPPOOL_IP_NUMBER,
    key::IPPOOL_RECLAIM,
];

/// What is to be said of a pod whose annotations hold keys below `ipam.spidernet.io/` that nobody knows.
pub fn plan_annotation_warning(annotations: &BTreeMap<String, String>) -> Option<String> {
    let is_unknown = |key: &&String| key.starts_with(PREFIX) && !KNOWN.contains(&key.as_str());
    let unknown: Vec<String> = annotations.keys().filter(is_unknown).map(|key| format!("'{key}'")).collect();
    if unknown.is_empty() {
        return None;
    }
    let (unknown, known) = (unknown.join(", "), KNOWN.map(|key| key.trim_start_matches(PREFIX)).join(", "));
    Some(format!(
        "Pod annotations without effect, their keys are unknown: {unknown}; below {PREFIX} there are {known}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_annotation_key_is_named() {
        let annotations = |keys: &[&str]| keys.iter().map(|key| ((*key).to_owned(), String::new())).collect();
        let text = plan_annotation_warning(&annotations(&["ipam.spidernet.io/ipool", key::IPPOOL, "a/b"]));
        let text = text.unwrap();
        assert!(text.contains("'ipam.spidernet.io/ipool'") && text.contains(" ippool,"), "{text}");
        assert!(!text.contains("'ipam.spidernet.io/ippool'") && !text.contains("a/b"), "{text}");
        assert_eq!(plan_annotation_warning(&annotations(&KNOWN)), None);
        assert_eq!(plan_annotation_warning(&annotations(&["k8s.v1.cni.cncf.io/networks"])), None);
        let misplaced = plan_annotation_warning(&annotations(&[key::NAMESPACE_IPV4_POOLS]));
        assert!(misplaced.is_some(), "it counts on namespaces");
    }
}
