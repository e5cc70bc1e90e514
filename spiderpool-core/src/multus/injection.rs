//! Networks that pods get by an annotation on themselves or on their namespace, with the resources that these need.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use super::annotations::{NETWORK_RESOURCE_INJECT, RDMA_RESOURCE_INJECT};
use super::{CniType, MultusFields};
use crate::field_error::FieldError;

/// The annotations, on pods, on namespaces and on networks. The first one that is set counts.
pub const INJECTION_KEYS: [&str; 2] = [RDMA_RESOURCE_INJECT, NETWORK_RESOURCE_INJECT];

/// Why pods cannot get a network by such an annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InjectionProblem {
    /// Its configuration does not say what it needs.
    #[error("networks of cniType {0} are not injected")]
    Type(CniType),
    /// There is nothing to ask for.
    #[error("the network needs the name of an RDMA resource (rdmaResourceName or resourceName)")]
    NoResource,
    /// The pods would get no address.
    #[error("the network needs at least one pool in ippools, because the pods name none")]
    NoPools,
}

impl InjectionProblem {
    /// What is wrong with a network that is to be injected by `key`.
    pub(super) fn of(fields: &MultusFields<'_>, key: &str) -> Option<Self> {
        if matches!(fields.cni_type, CniType::Ovs | CniType::Custom) {
            return Some(Self::Type(fields.cni_type));
        }
        let has_pools =
            fields.pools().is_some_and(|(_, pools)| !(pools.ipv4.is_empty() && pools.ipv6.is_empty()));
        match (fields.resource_name().is_some(), has_pools) {
            (false, _) if key == RDMA_RESOURCE_INJECT => Some(Self::NoResource),
            (true, false) => Some(Self::NoPools),
            _ => None,
        }
    }
}

/// How many units of a network's resource a pod with several such networks needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sharing {
    /// All share one.
    Shared,
    /// Each network takes one of its own: a virtual function.
    Own,
}

/// A network, as far as its injection goes. They are in the order in which pods get them: by device, then by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectableNetwork {
    device: String,
    namespace: String,
    name: String,
    attachment: String,
    resource: Option<(String, Sharing)>,
    /// By the position of the key: the value that selects the network, and what is wrong with it then.
    selected_by: [Option<(String, Option<InjectionProblem>)>; 2],
}

impl InjectableNetwork {
    /// `None` of a network that nothing selects. Its labels say by which values pods get it, as the webhook has set them,
    /// or else its annotations.
    pub fn new(
        namespace: &str,
        fields: &MultusFields<'_>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<Self> {
        let selected_by = INJECTION_KEYS.map(|key| {
            let label = labels.and_then(|labels| labels.get(key)).filter(|value| !value.is_empty());
            let value = label.map(String::as_str).or_else(|| fields.annotation(key))?;
            Some((value.to_owned(), InjectionProblem::of(fields, key)))
        });
        let sharing = match fields.cni_type {
            CniType::Sriov | CniType::IbSriov => Sharing::Own,
            _ => Sharing::Shared,
        };
        selected_by.iter().any(Option::is_some).then(|| Self {
            device: fields.device_name(),
            namespace: namespace.to_owned(),
            name: fields.name.to_owned(),
            attachment: fields.attachment_name().to_owned(),
            // That of ipoib is a device of the node, which no container asks for.
            resource: fields
                .resource_name()
                .filter(|_| fields.cni_type != CniType::Ipoib)
                .map(|name| (name.to_owned(), sharing)),
            selected_by,
        })
    }

    fn selection(&self, wanted: &Wanted) -> Option<&(String, Option<InjectionProblem>)> {
        let position = INJECTION_KEYS.iter().position(|key| *key == wanted.key)?;
        self.selected_by[position].as_ref().filter(|(value, _)| *value == wanted.value)
    }
}

/// What a pod asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// One of [`INJECTION_KEYS`].
    pub key: &'static str,
    /// The value of the annotation.
    pub value: String,
    /// Who has the annotation.
    pub by: WantedBy,
}

/// Who asks for a pod's networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WantedBy {
    /// The pod itself.
    Pod,
    /// Its namespace.
    Namespace,
}

type Annotations = BTreeMap<String, String>;

impl Wanted {
    /// Whether what a pod asks for depends on what its namespace has.
    pub fn depends_on_namespace(pod: Option<&Annotations>) -> bool {
        value(pod, INJECTION_KEYS[0]).is_none()
    }

    /// What a pod of this namespace asks for: by each key the pod comes first.
    pub fn of(pod: Option<&Annotations>, namespace: Option<&Annotations>) -> Option<Self> {
        INJECTION_KEYS.into_iter().find_map(|key| {
            let by = |by, value| Self { key, value, by };
            let of_namespace = || value(namespace, key).map(|value| by(WantedBy::Namespace, value));
            value(pod, key).map(|value| by(WantedBy::Pod, value)).or_else(of_namespace)
        })
    }
}

/// An empty one counts as absent.
fn value(annotations: Option<&Annotations>, key: &str) -> Option<String> {
    annotations?.get(key).filter(|value| !value.is_empty()).cloned()
}

/// What a pod gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Injection {
    /// Its networks, as Multus reads them.
    pub networks: String,
    /// How many units of each resource one of its containers has to have.
    pub resources: BTreeMap<String, u32>,
}

/// What a pod gets that asks for `wanted`, or all that is wrong with it: of these networks, those that are selected.
pub fn plan_injection<'a>(
    wanted: &Wanted,
    networks: impl IntoIterator<Item = &'a InjectableNetwork>,
) -> Result<Injection, Vec<FieldError>> {
    let mut selected: Vec<_> =
        networks.into_iter().filter_map(|network| Some((network, network.selection(wanted)?.1))).collect();
    selected.sort_by_key(|(network, _)| (&network.device, &network.namespace, &network.name));
    let fault = |detail: String| {
        let of = match wanted.by {
            WantedBy::Pod => "",
            WantedBy::Namespace => " (an annotation of the Namespace)",
        };
        FieldError::invalid(format!("metadata.annotations[{}]", wanted.key), &wanted.value, detail + of)
    };
    if selected.is_empty() {
        let key = wanted.key;
        let detail = format!(
            "no spidermultusconfigs with annotation: {key}: {}: correct the value, or give a SpiderMultusConfig that annotation",
            wanted.value
        );
        return Err(vec![fault(detail)]);
    }
    let faults: Vec<_> = selected
        .iter()
        .filter_map(|(network, problem)| {
            let (namespace, name) = (&network.namespace, &network.name);
            Some(fault(format!(
                "SpiderMultusConfig {namespace}/{name}: {}: correct it, or take that annotation from it",
                (*problem)?
            )))
        })
        .collect();
    if !faults.is_empty() {
        return Err(faults);
    }
    let mut injection = Injection::default();
    let mut named = BTreeSet::new();
    for (network, _) in selected {
        let path = format!("{}/{}", network.namespace, network.attachment);
        if !named.insert(path.clone()) {
            continue;
        }
        if !injection.networks.is_empty() {
            injection.networks.push(',');
        }
        injection.networks += &path;
        if let Some((resource, sharing)) = &network.resource {
            let units = injection.resources.entry(resource.clone()).or_default();
            *units = match sharing {
                Sharing::Shared => 1,
                Sharing::Own => *units + 1,
            };
        }
    }
    Ok(injection)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::multus::{Bond, MultusPools, SriovConfig, VlanNicConfig};

    fn annotations(pairs: &[(&str, &str)]) -> Annotations {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn pools() -> MultusPools {
        MultusPools { ipv4: vec!["p".to_owned()], ..MultusPools::default() }
    }

    fn macvlan(master: &str, resource: &str) -> VlanNicConfig {
        VlanNicConfig {
            master: vec![master.to_owned()],
            rdma_resource_name: Some(resource.to_owned()),
            ippools: Some(pools()),
            ..VlanNicConfig::default()
        }
    }

    fn network(name: &str, config: &VlanNicConfig, marks: &Annotations) -> InjectableNetwork {
        let fields = MultusFields {
            name,
            annotations: Some(marks),
            cni_type: CniType::Macvlan,
            macvlan: Some(config),
            ..MultusFields::default()
        };
        InjectableNetwork::new("ns", &fields, None).unwrap()
    }

    fn wanted(key: &'static str, value: &str) -> Wanted {
        Wanted { key, value: value.to_owned(), by: WantedBy::Pod }
    }

    /// Upstream's case H00001.
    #[test]
    fn a_pod_gets_all_networks_of_the_value_in_the_order_of_their_devices() {
        let marks = annotations(&[(RDMA_RESOURCE_INJECT, "gpu")]);
        let other = annotations(&[(RDMA_RESOURCE_INJECT, "other")]);
        let networks = [
            network("a", &macvlan("ens2", "spidernet.io/two"), &marks),
            network("c", &macvlan("ens1", "spidernet.io/one"), &marks),
            network("b", &macvlan("ens1", "spidernet.io/one"), &marks),
            network("d", &macvlan("ens1", "spidernet.io/four"), &other),
        ];
        let plan = plan_injection(&wanted(RDMA_RESOURCE_INJECT, "gpu"), &networks).unwrap();
        assert_eq!(plan.networks, "ns/b,ns/c,ns/a");
        let resources = [("spidernet.io/one".to_owned(), 1), ("spidernet.io/two".to_owned(), 1)];
        assert_eq!(plan.resources, resources.into());
    }

    #[test]
    fn a_virtual_function_is_nobody_elses() {
        let marks = annotations(&[(NETWORK_RESOURCE_INJECT, "vf"), ("multus.spidernet.io/cr-name", "net")]);
        let config = SriovConfig {
            resource_name: Some("intel.com/vf".to_owned()),
            ippools: Some(pools()),
            ..SriovConfig::default()
        };
        let of = |name, namespace| {
            let fields = MultusFields {
                name,
                annotations: Some(&marks),
                cni_type: CniType::Sriov,
                sriov: Some(&config),
                ..MultusFields::default()
            };
            InjectableNetwork::new(namespace, &fields, None).unwrap()
        };
        let networks = [of("a", "x"), of("b", "y")];
        let plan = plan_injection(&wanted(NETWORK_RESOURCE_INJECT, "vf"), &networks).unwrap();
        assert_eq!(
            (plan.networks.as_str(), plan.resources),
            ("x/net,y/net", [("intel.com/vf".to_owned(), 2)].into())
        );
    }

    #[test]
    fn all_faults_are_in_one_answer() {
        let marks = annotations(&[(RDMA_RESOURCE_INJECT, "gpu")]);
        let networks = [
            network("good", &macvlan("ens1", "r"), &marks),
            network("no-resource", &macvlan("ens1", ""), &marks),
            network("no-pools", &VlanNicConfig { ippools: None, ..macvlan("ens1", "r") }, &marks),
        ];
        let faults = plan_injection(&wanted(RDMA_RESOURCE_INJECT, "gpu"), &networks).unwrap_err();
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 2, "{texts:?}");
        let start = "metadata.annotations[cni.spidernet.io/rdma-resource-inject]: Invalid value: \"gpu\": SpiderMultusConfig ns/no-pools: the network needs at least one pool";
        assert!(texts[0].starts_with(start), "{texts:?}");
        assert!(
            texts[1].contains("ns/no-resource: the network needs the name of an RDMA resource"),
            "{texts:?}"
        );
        // The other annotation wants less.
        let marks = annotations(&[(NETWORK_RESOURCE_INJECT, "gpu")]);
        let networks = [network("plain", &VlanNicConfig { ippools: None, ..macvlan("ens1", "") }, &marks)];
        let plan = plan_injection(&wanted(NETWORK_RESOURCE_INJECT, "gpu"), &networks).unwrap();
        assert_eq!((plan.networks.as_str(), plan.resources.len()), ("ns/plain", 0));
        let none = plan_injection(
            &Wanted { by: WantedBy::Namespace, ..wanted(RDMA_RESOURCE_INJECT, "x") },
            &networks,
        );
        let none = none.unwrap_err()[0].to_string();
        let part = "no spidermultusconfigs with annotation: cni.spidernet.io/rdma-resource-inject: x";
        assert!(none.contains(part) && none.ends_with("(an annotation of the Namespace)"), "{none}");
    }

    #[test]
    fn labels_select_a_network_before_its_annotations() {
        let config = macvlan("ens1", "r");
        let marks = annotations(&[(RDMA_RESOURCE_INJECT, "annotated")]);
        let fields = MultusFields {
            name: "n",
            annotations: Some(&marks),
            cni_type: CniType::Macvlan,
            macvlan: Some(&config),
            ..MultusFields::default()
        };
        let labels = annotations(&[(RDMA_RESOURCE_INJECT, "labelled")]);
        let network = InjectableNetwork::new("ns", &fields, Some(&labels)).unwrap();
        assert!(plan_injection(&wanted(RDMA_RESOURCE_INJECT, "labelled"), [&network]).is_ok());
        assert!(plan_injection(&wanted(RDMA_RESOURCE_INJECT, "annotated"), [&network]).is_err());
        let fields = MultusFields { annotations: None, ..fields };
        assert_eq!(InjectableNetwork::new("ns", &fields, None), None);
    }

    #[test]
    fn the_first_key_counts_and_by_each_the_pod_before_its_namespace() {
        let [rdma, network] = INJECTION_KEYS;
        let (none, empty) = (annotations(&[]), annotations(&[(rdma, "")]));
        let (pod, namespace) = (annotations(&[(rdma, "p")]), annotations(&[(rdma, "n"), (network, "m")]));
        let of = |pod: &Annotations, namespace: &Annotations| {
            Wanted::of(Some(pod), Some(namespace)).map(|wanted| (wanted.key, wanted.value, wanted.by))
        };
        assert_eq!(of(&none, &none), None);
        assert_eq!(of(&pod, &namespace), Some((rdma, "p".to_owned(), WantedBy::Pod)));
        assert_eq!(of(&empty, &namespace), Some((rdma, "n".to_owned(), WantedBy::Namespace)));
        let second = annotations(&[(network, "p")]);
        assert_eq!(of(&second, &namespace), Some((rdma, "n".to_owned(), WantedBy::Namespace)), "as upstream");
        assert_eq!(of(&second, &none), Some((network, "p".to_owned(), WantedBy::Pod)));
        let depends = |pod| Wanted::depends_on_namespace(Some(pod));
        assert!(!depends(&pod) && depends(&second) && depends(&none));
    }

    #[test]
    fn a_bond_is_the_device_of_its_masters() {
        let bond = Bond { name: "bond0".to_owned(), ..Bond::default() };
        let config = VlanNicConfig { bond: Some(bond), ..macvlan("ens9", "r") };
        let fields =
            MultusFields { cni_type: CniType::Macvlan, macvlan: Some(&config), ..MultusFields::default() };
        assert_eq!(fields.device_name(), "bond0");
    }
}
