//! The objects that the values ask for. Pure.

use kube::Resource;
use kube::core::ApiResource;
use serde_json::{Map, Value, json};
use spiderpool_api::crd::{SpiderCoordinator, SpiderIPPool};
use spiderpool_core::Unsupported;
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::Pool;
use thiserror::Error;

use super::environment::Values;
use super::lists::{self, RouteText};

/// Why the values make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ObjectError {
    /// A value asks for a feature that is not there yet.
    #[error("{variable}: {feature}")]
    Unsupported {
        /// The variable.
        variable: &'static str,
        /// What it asks for.
        feature: Unsupported,
    },
    /// A value cannot be used.
    #[error("{variable}: {cause}")]
    Value {
        /// The variable.
        variable: String,
        /// Why.
        cause: String,
    },
    /// Two pools with one name.
    #[error("the IPv4 and the IPv6 default pool are both named {0:?}: give them different names")]
    SameName(String),
    /// A pool that makes no sense.
    #[error("{0}: change the values of the default pool")]
    Pool(String),
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// As it is sent.
    pub object: Value,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.name)
    }
}

/// Everything, in the order in which it is applied.
pub fn plan(values: &Values) -> Result<Vec<Wanted>, ObjectError> {
    check_supported(values)?;
    let mut wanted = Vec::new();
    wanted.extend(coordinator(values)?);
    let v4 = PoolValues {
        variable: "SPIDERPOOL_INIT_DEFAULT_IPV4_IPPOOL_SUBNET",
        name: &values.ipv4_pool_name,
        subnet: &values.ipv4_pool_subnet,
        ranges: &values.ipv4_pool_ranges,
        gateway: &values.ipv4_pool_gateway,
    };
    let v6 = PoolValues {
        variable: "SPIDERPOOL_INIT_DEFAULT_IPV6_IPPOOL_SUBNET",
        name: &values.ipv6_pool_name,
        subnet: &values.ipv6_pool_subnet,
        ranges: &values.ipv6_pool_ranges,
        gateway: &values.ipv6_pool_gateway,
    };
    if !v4.name.is_empty() && v4.name == v6.name {
        return Err(ObjectError::SameName(v4.name.to_owned()));
    }
    wanted.extend(pool(&v4, Family::V4)?);
    wanted.extend(pool(&v6, Family::V6)?);
    Ok(wanted)
}

fn check_supported(values: &Values) -> Result<(), ObjectError> {
    let multus = !matches!(values.enable_multus_config.as_str(), "" | "false");
    let refused = [
        (
            !values.ipv4_subnet_name.is_empty(),
            "SPIDERPOOL_INIT_DEFAULT_IPV4_SUBNET_NAME",
            Unsupported::DefaultSubnet,
        ),
        (
            !values.ipv6_subnet_name.is_empty(),
            "SPIDERPOOL_INIT_DEFAULT_IPV6_SUBNET_NAME",
            Unsupported::DefaultSubnet,
        ),
        (multus, "SPIDERPOOL_INIT_ENABLE_MULTUS_CONFIG", Unsupported::MultusConfig),
    ];
    match refused.into_iter().find(|(is_set, ..)| *is_set) {
        None => Ok(()),
        Some((_, variable, feature)) => Err(ObjectError::Unsupported { variable, feature }),
    }
}

fn wanted<K: Resource<DynamicType = ()>>(name: &str, spec: &Value) -> Wanted {
    let resource = ApiResource::erase::<K>(&());
    let object = json!({
        "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec,
    });
    Wanted { resource, name: name.to_owned(), object }
}

fn coordinator(values: &Values) -> Result<Option<Wanted>, ObjectError> {
    if values.coordinator_name.is_empty() {
        return Ok(None);
    }
    let failed = |variable: &str| {
        let variable = format!("SPIDERPOOL_INIT_DEFAULT_COORDINATOR_{variable}");
        move |cause| ObjectError::Value { variable, cause }
    };
    let mut spec = Map::new();
    let mode = if values.coordinator_mode.is_empty() { "auto" } else { &values.coordinator_mode };
    for (field, text) in [
        ("mode", mode),
        ("podCIDRType", &values.coordinator_pod_cidr_type),
        ("vethLinkAddress", &values.coordinator_veth_link_address),
        ("dataplane", &values.coordinator_dataplane),
        ("podDefaultRouteNIC", &values.coordinator_pod_default_route_nic),
        ("podMACPrefix", &values.coordinator_pod_mac_prefix),
    ] {
        if !text.is_empty() {
            spec.insert(field.to_owned(), json!(text));
        }
    }
    for (field, variable, text) in [
        ("vethMTU", "VETH_MTU", &values.coordinator_veth_mtu),
        ("podRPFilter", "POD_RP_FILTER", &values.coordinator_pod_rp_filter),
        ("txQueueLen", "TX_QUEUE_LEN", &values.coordinator_tx_queue_len),
    ] {
        if !text.is_empty() {
            let number: Result<i64, _> = text.parse();
            let number = number.map_err(|_| format!("{text:?} is not a number"));
            spec.insert(field.to_owned(), json!(number.map_err(failed(variable))?));
        }
    }
    if !values.coordinator_tune_pod_routes.is_empty() {
        let tune = spiderpool_runtime::environment::switch(&values.coordinator_tune_pod_routes);
        spec.insert("tunePodRoutes".to_owned(), json!(tune.map_err(failed("TUNE_POD_ROUTES"))?));
    }
    if !values.coordinator_ebpf_route_hints.is_empty() {
        spec.insert("ebpf".to_owned(), json!({"routeHints": values.coordinator_ebpf_route_hints}));
    }
    let hijack = lists::texts(&values.coordinator_hijack_cidr);
    let hijack: Result<Vec<_>, _> = hijack.iter().map(|text| lists::cidr(text)).collect();
    spec.insert("hijackCIDR".to_owned(), json!(hijack.map_err(failed("HIJACK_CIDR"))?));
    let routes = lists::json::<RouteText>(&values.coordinator_policy_routes);
    let routes = routes.map_err(failed("POLICY_ROUTES"))?;
    if !routes.is_empty() {
        let route = |route: &RouteText| Ok(json!({"dst": lists::cidr(&route.dst)?, "gw": route.gw}));
        let routes: Result<Vec<_>, _> = routes.iter().map(route).collect();
        spec.insert("policyRoutes".to_owned(), json!(routes.map_err(failed("POLICY_ROUTES"))?));
    }
    Ok(Some(wanted::<SpiderCoordinator>(&values.coordinator_name, &Value::Object(spec))))
}

struct PoolValues<'a> {
    /// The variable of the subnet.
    variable: &'static str,
    name: &'a str,
    subnet: &'a str,
    ranges: &'a str,
    gateway: &'a str,
}

fn pool(values: &PoolValues<'_>, family: Family) -> Result<Option<Wanted>, ObjectError> {
    if values.name.is_empty() {
        return Ok(None);
    }
    if values.subnet.is_empty() {
        let cause = format!("it is empty, but the default {family} pool {} needs a subnet", values.name);
        return Err(ObjectError::Value { variable: values.variable.to_owned(), cause });
    }
    let mut spec = json!({
        "default": true, "ipVersion": family.version(), "subnet": values.subnet,
        "ips": lists::texts(values.ranges),
    });
    if let Some(spec) = spec.as_object_mut().filter(|_| !values.gateway.is_empty()) {
        spec.insert("gateway".to_owned(), json!(values.gateway));
    }
    let wanted = wanted::<SpiderIPPool>(values.name, &spec);
    let object: SpiderIPPool = serde_json::from_value(wanted.object.clone())
        .map_err(|error| ObjectError::Pool(error.to_string()))?;
    Pool::try_from(&object).map_err(|error| ObjectError::Pool(error.to_string()))?;
    Ok(Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            coordinator_name: "default".into(),
            coordinator_pod_cidr_type: "cluster".into(),
            coordinator_dataplane: "ebpf".into(),
            coordinator_ebpf_route_hints: "auto".into(),
            coordinator_tune_pod_routes: "true".into(),
            coordinator_hijack_cidr: r#"["169.254.0.0/16", "1.2.3.4"]"#.into(),
            coordinator_policy_routes: r#"[{"dst": "10.0.0.1/8", "gw": "10.6.0.1"}]"#.into(),
            coordinator_veth_mtu: "1450".into(),
            ipv4_pool_name: "default-v4-ippool".into(),
            ipv4_pool_subnet: "10.6.0.0/16".into(),
            ipv4_pool_ranges: r#"["10.6.10.1-10.6.10.200"]"#.into(),
            ipv4_pool_gateway: "10.6.0.1".into(),
            ipv6_pool_name: "default-v6-ippool".into(),
            ipv6_pool_subnet: "fd00::/64".into(),
            ..Values::default()
        }
    }

    #[test]
    fn everything_that_the_values_say_arrives() {
        let objects = plan(&values()).unwrap();
        let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            ["SpiderCoordinator default", "SpiderIPPool default-v4-ippool", "SpiderIPPool default-v6-ippool"]
        );
        assert_eq!(
            objects[0].object["spec"],
            json!({
                "mode": "auto", "podCIDRType": "cluster", "dataplane": "ebpf", "ebpf": {"routeHints": "auto"},
                "tunePodRoutes": true, "hijackCIDR": ["169.254.0.0/16", "1.2.3.4/32"], "vethMTU": 1450,
                "policyRoutes": [{"dst": "10.0.0.0/8", "gw": "10.6.0.1"}],
            })
        );
        assert_eq!(
            objects[1].object["spec"],
            json!({
                "default": true, "ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.10.1-10.6.10.200"],
                "gateway": "10.6.0.1",
            })
        );
        assert_eq!(objects[2].object["spec"]["ips"], json!([]));
        assert_eq!(plan(&Values::default()), Ok(vec![]));
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Values), parts: &[&str]) {
        let mut values = values();
        change(&mut values);
        let error = plan(&values).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        refused(
            |values| values.ipv6_pool_name = "default-v4-ippool".into(),
            &["both named", "default-v4-ippool"],
        );
        refused(|values| values.ipv4_pool_subnet = String::new(), &["IPV4_IPPOOL_SUBNET", "needs a subnet"]);
        refused(|values| values.ipv4_pool_subnet = "fd00::/64".into(), &["default-v4-ippool", "ipVersion"]);
        refused(|values| values.ipv4_pool_gateway = "10.6.10.1".into(), &["excludeIPs"]);
        refused(|values| values.coordinator_veth_mtu = "big".into(), &["COORDINATOR_VETH_MTU", "big"]);
        refused(|values| values.coordinator_hijack_cidr = "x".into(), &["HIJACK_CIDR", "\"x\""]);
        refused(|values| values.coordinator_tune_pod_routes = "maybe".into(), &["TUNE_POD_ROUTES"]);
    }

    #[test]
    fn what_is_not_built_is_refused_with_a_remedy() {
        refused(|values| values.ipv4_subnet_name = "s".into(), &["IPV4_SUBNET_NAME", "not supported yet"]);
        refused(|values| values.enable_multus_config = "true".into(), &["MULTUS_CONFIG", "set it to false"]);
        let mut values = values();
        values.enable_multus_config = "false".into();
        assert!(plan(&values).is_ok());
    }
}
