//! Arguments of kube-controller-manager and kube-apiserver, where these are pods.

use std::collections::BTreeMap;

use kube::core::Object;
use serde::Deserialize;

use crate::leader::coordinator::cidrs::Cidrs;

const POD_CIDRS: &str = "--cluster-cidr";
const SERVICE_CIDRS: &str = "--service-cluster-ip-range";

/// What is read of a pod.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodSpec {
    containers: Vec<Container>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Container {
    command: Vec<String>,
    args: Vec<String>,
}

/// A pod of the control plane.
pub(crate) type ControlPlanePod = Object<Option<PodSpec>, serde::de::IgnoredAny>;

/// The networks that the control plane is started with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ControlPlane {
    /// `--cluster-cidr`.
    pub(crate) pods: Cidrs,
    /// `--service-cluster-ip-range`.
    pub(crate) services: Cidrs,
}

/// What the pods' arguments say, those of all pods together: while they are replaced one by one, both values count.
pub(crate) fn networks(pods: Vec<ControlPlanePod>) -> ControlPlane {
    let pods: BTreeMap<_, _> = pods.into_iter().map(|pod| (pod.metadata.name.clone(), pod)).collect();
    let mut networks = ControlPlane::default();
    for (name, pod) in pods {
        let object = format!("Pod kube-system/{}", name.unwrap_or_default());
        for container in pod.spec.unwrap_or_default().containers {
            let words = words(&container);
            for value in values(&words, POD_CIDRS) {
                networks.pods.add_list(&object, POD_CIDRS, value);
            }
            for value in values(&words, SERVICE_CIDRS) {
                networks.services.add_list(&object, SERVICE_CIDRS, value);
            }
        }
    }
    networks
}

/// All words of a container's command line, also of those that a shell is given as one text.
fn words(container: &Container) -> Vec<&str> {
    let texts = container.command.iter().chain(&container.args);
    texts.flat_map(|text| text.split_whitespace()).collect()
}

/// The values of a flag, as `--flag=value` or `--flag value`.
fn values<'a>(words: &[&'a str], flag: &str) -> Vec<&'a str> {
    let following = words.iter().skip(1).map(Some).chain([None]);
    let of_flag = |(word, next): (&&'a str, Option<&&'a str>)| {
        let rest = word.trim_start_matches(['"', '\'']).strip_prefix(flag)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value),
            None if rest.is_empty() => next.copied().filter(|next| !next.starts_with('-')),
            None => None,
        }
    };
    words.iter().zip(following).filter_map(of_flag).map(|value| value.trim_matches(['"', '\''])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, container: &Value) -> ControlPlanePod {
        let metadata = json!({"name": name, "namespace": "kube-system"});
        let spec = json!({"containers": [{"name": "sidecar", "image": "i"}, container]});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[track_caller]
    fn check(container: &Value, pods: &[&str], services: &[&str]) {
        let networks = networks(vec![pod("a", container)]);
        assert_eq!((networks.pods.texts(), networks.services.texts()), (texts(pods), texts(services)));
    }

    #[test]
    fn arguments_are_found_in_all_forms() {
        let kubeadm = json!({"command": [
            "kube-controller-manager", "--allocate-node-cidrs=true", "--cluster-cidr=10.244.0.0/16,fd44::/48",
            "--cluster-cidr-extra=10.1.0.0/16", "--service-cluster-ip-range=10.96.0.0/12",
        ]});
        check(&kubeadm, &["10.244.0.0/16", "fd44::/48"], &["10.96.0.0/12"]);
        let apart = json!({"command": ["kube-apiserver"], "args": ["--service-cluster-ip-range", "10.96.0.0/12", "-v", "2"]});
        check(&apart, &[], &["10.96.0.0/12"]);
        let shell = json!({"command": ["/bin/sh", "-c", "exec kube-controller-manager --cluster-cidr='10.2.0.0/16' -v 2"]});
        check(&shell, &["10.2.0.0/16"], &[]);
        check(&json!({"command": ["kube-controller-manager", "--cluster-cidr"]}), &[], &[]);
        check(&json!({"command": ["kube-controller-manager", "--cluster-cidr", "--v=2"]}), &[], &[]);
    }

    #[test]
    fn values_of_all_pods_count_and_invalid_ones_are_named() {
        let command = |cidr: &str| json!({"command": [format!("--cluster-cidr={cidr}")]});
        let pods = vec![
            pod("c", &command("10.2.0.0/16")),
            pod("a", &command("10.1.0.0/16")),
            pod("b", &command("10.1.0.0/16")),
            pod("d", &command("nonsense")),
        ];
        let networks = networks(pods);
        assert_eq!(networks.pods.texts(), ["10.1.0.0/16", "10.2.0.0/16"]);
        let invalid = networks.pods.invalid[0].to_string();
        assert!(
            invalid.contains("Pod kube-system/d: --cluster-cidr: Invalid value: \"nonsense\""),
            "{invalid}"
        );
    }
}
