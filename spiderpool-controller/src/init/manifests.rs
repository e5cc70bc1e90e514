//! The default objects as they are applied. Pure.

use kube::Resource;
use kube::core::ApiResource;
use serde_json::{Value, json};
use spiderpool_api::crd::{CoordinatorSpec, SpiderCoordinator, SpiderIPPool, SpiderSubnet};
use spiderpool_core::coordinator::{PolicyRouteText, Settings, SettingsError, check_rp_filter};
use spiderpool_core::ip::Family;
use spiderpool_core::ipam::Pool;
use spiderpool_core::subnet::Subnet;
use thiserror::Error;

use super::file::{DefaultCoordinator, DefaultPool, InitFile};

/// Why the values are invalid.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// A setting of the coordinator.
    #[error("coordinator {name}: {source}")]
    Coordinator {
        /// The SpiderCoordinator.
        name: String,
        /// What is wrong.
        source: SettingsError,
    },
    /// A pool needs a name, or one of its subnet.
    #[error("the default {0} pool needs a name: it is empty")]
    NoName(Family),
    /// A pool needs a subnet.
    #[error("the default {family} pool {name} needs a subnet: it is empty")]
    NoSubnet {
        /// The pool's family.
        family: Family,
        /// The pool.
        name: String,
    },
    /// Two pools with one name.
    #[error("the IPv4 and the IPv6 default pool are both named {0:?}: give them different names")]
    SameName(String),
    /// Two subnets with one name.
    #[error(
        "the SpiderSubnets of the IPv4 and the IPv6 default pool are both named {0:?}: give them different names"
    )]
    SameSubnetName(String),
    /// An invalid pool, or its subnet.
    #[error("{0}: change the values of the default pool")]
    Pool(String),
}

/// An object to apply.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Its kind.
    pub resource: ApiResource,
    /// Its name.
    pub name: String,
    /// As it is sent.
    pub object: Value,
}

impl Manifest {
    fn new<K: Resource<DynamicType = ()>>(name: &str, spec: &Value) -> Self {
        let resource = ApiResource::erase::<K>(&());
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec,
        });
        Self { resource, name: name.to_owned(), object }
    }
}

impl std::fmt::Display for Manifest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.resource.kind, self.name)
    }
}

/// Everything, in the order in which it is applied.
pub fn plan(file: &InitFile) -> Result<Vec<Manifest>, ManifestError> {
    let mut manifests = Vec::new();
    if let Some(default) = &file.coordinator {
        manifests.push(coordinator(default)?);
    }
    if let (Some(v4), Some(v6)) = (&file.ipv4_pool, &file.ipv6_pool) {
        if v4.name == v6.name && !v4.name.is_empty() {
            return Err(ManifestError::SameName(v4.name.clone()));
        }
        if v4.subnet_name == v6.subnet_name && !v4.subnet_name.is_empty() {
            return Err(ManifestError::SameSubnetName(v4.subnet_name.clone()));
        }
    }
    let pools = [(&file.ipv4_pool, Family::V4), (&file.ipv6_pool, Family::V6)];
    let pools = pools.into_iter().filter_map(|(default, family)| Some((default.as_ref()?, family)));
    // Both subnets before the pools: as a pool is made, it becomes its subnet's.
    for (default, family) in pools.clone().filter(|(default, _)| !default.subnet_name.is_empty()) {
        manifests.push(subnet(default, family)?);
    }
    for (default, family) in pools {
        match (default.name.is_empty(), default.subnet_name.is_empty()) {
            (true, true) => return Err(ManifestError::NoName(family)),
            (true, false) => {}
            (false, _) => manifests.push(pool(default, family)?),
        }
    }
    Ok(manifests)
}

/// The spec as it is in the file, with addresses as networks and without empty texts.
fn coordinator(default: &DefaultCoordinator) -> Result<Manifest, ManifestError> {
    let failed = |source| ManifestError::Coordinator { name: default.name.clone(), source };
    let settings = default.spec.settings.clone();
    let config = Settings::resolve(settings.clone(), Settings::default()).map_err(failed)?;
    // With the defaults of the CustomResourceDefinition; what is resolved has those of an agent of old.
    let dataplane = settings.clone().or(Settings::defaults()).dataplane.unwrap_or_default();
    check_rp_filter(dataplane.parse().map_err(failed)?, config.rp_filter).map_err(failed)?;
    let mode = Settings { mode: Some(config.mode.to_string()), ..Settings::default() };
    let routes = config.policy_routes.iter();
    let routes = routes.map(|r| PolicyRouteText { dst: r.dst.to_string(), gw: r.gw.to_string() });
    let settings = Settings {
        // An empty list is applied too: it removes the entries of an earlier one.
        hijack_cidr: Some(config.cluster_cidrs.iter().map(ToString::to_string).collect()),
        policy_routes: Some(routes.collect::<Vec<_>>()).filter(|routes| !routes.is_empty()),
        ..settings.or(mode)
    };
    let spec = CoordinatorSpec { settings, ..default.spec.clone() };
    Ok(Manifest::new::<SpiderCoordinator>(&default.name, &json!(spec)))
}

/// What pool and subnet have both.
fn addresses(default: &DefaultPool, family: Family) -> Result<Value, ManifestError> {
    if default.subnet.is_empty() {
        let names = [&default.name, &default.subnet_name];
        let name = names.into_iter().find(|name| !name.is_empty()).cloned().unwrap_or_default();
        return Err(ManifestError::NoSubnet { family, name });
    }
    let mut spec = json!({"ipVersion": family.version(), "subnet": default.subnet, "ips": default.ip_ranges});
    if !default.gateway.is_empty() {
        spec["gateway"] = json!(default.gateway);
    }
    Ok(spec)
}

fn subnet(default: &DefaultPool, family: Family) -> Result<Manifest, ManifestError> {
    let spec = addresses(default, family)?;
    let manifest = Manifest::new::<SpiderSubnet>(&default.subnet_name, &spec);
    let object: SpiderSubnet = serde_json::from_value(manifest.object.clone())
        .map_err(|error| ManifestError::Pool(error.to_string()))?;
    Subnet::try_from(&object).map_err(|error| ManifestError::Pool(error.to_string()))?;
    Ok(manifest)
}

fn pool(default: &DefaultPool, family: Family) -> Result<Manifest, ManifestError> {
    let mut spec = addresses(default, family)?;
    spec["default"] = json!(true);
    let manifest = Manifest::new::<SpiderIPPool>(&default.name, &spec);
    let object: SpiderIPPool = serde_json::from_value(manifest.object.clone())
        .map_err(|error| ManifestError::Pool(error.to_string()))?;
    Pool::try_from(&object).map_err(|error| ManifestError::Pool(error.to_string()))?;
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use spiderpool_runtime::config_file::Content as _;

    use super::*;

    const FILE: &str = r#"
coordinator:
  name: default
  spec:
    podCIDRType: cluster
    dataplane: ebpf
    ebpf: {routeHints: auto}
    tunePodRoutes: true
    hijackCIDR: ["169.254.0.0/16", "1.2.3.4"]
    policyRoutes: [{dst: 10.0.0.1/8, gw: 10.6.0.1}]
    podDefaultRouteNIC: ""
    vethMTU: 1450
ipv4Pool:
  name: default-v4-ippool
  subnet: 10.6.0.0/16
  ipRanges: [10.6.10.1-10.6.10.200]
  gateway: 10.6.0.1
ipv6Pool: {name: default-v6-ippool, subnet: "fd00::/64"}
"#;

    fn file() -> InitFile {
        InitFile::parse(FILE).unwrap()
    }

    #[test]
    fn objects_have_all_configured_values() {
        let objects = plan(&file()).unwrap();
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
        assert_eq!(plan(&InitFile::default()), Ok(vec![]));
    }

    #[test]
    fn subnets_come_before_pools_and_have_their_addresses() {
        let mut file = file();
        v4(&mut file).subnet_name = "default-v4-subnet".into();
        let v6 = file.ipv6_pool.as_mut().unwrap();
        (v6.name, v6.subnet_name) = (String::new(), "default-v6-subnet".into());
        let objects = plan(&file).unwrap();
        let names: Vec<_> = objects.iter().map(ToString::to_string).collect();
        assert_eq!(
            names,
            [
                "SpiderCoordinator default",
                "SpiderSubnet default-v4-subnet",
                "SpiderSubnet default-v6-subnet",
                "SpiderIPPool default-v4-ippool",
            ]
        );
        assert_eq!(
            objects[1].object["spec"],
            json!({
                "ipVersion": 4, "subnet": "10.6.0.0/16", "ips": ["10.6.10.1-10.6.10.200"], "gateway": "10.6.0.1",
            })
        );
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut InitFile), parts: &[&str]) {
        let mut file = file();
        change(&mut file);
        let error = plan(&file).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }

    fn v4(file: &mut InitFile) -> &mut DefaultPool {
        file.ipv4_pool.as_mut().unwrap()
    }

    fn settings(file: &mut InitFile) -> &mut Settings {
        &mut file.coordinator.as_mut().unwrap().spec.settings
    }

    #[test]
    fn a_strict_filter_is_for_dataplane_policy() {
        let mut file = file();
        let settings = settings(&mut file);
        (settings.dataplane, settings.pod_rp_filter) = (Some("policy".into()), Some(1));
        assert_eq!(plan(&file).unwrap()[0].object["spec"]["podRPFilter"], 1);
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        refused(|file| v4(file).name = "default-v6-ippool".into(), &["both named", "default-v6-ippool"]);
        refused(|file| v4(file).name = String::new(), &["default IPv4 pool needs a name"]);
        refused(|file| v4(file).subnet = String::new(), &["IPv4 pool default-v4-ippool", "needs a subnet"]);
        refused(|file| v4(file).subnet = "fd00::/64".into(), &["default-v4-ippool", "ipVersion"]);
        refused(|file| v4(file).gateway = "10.6.10.1".into(), &["excludeIPs"]);
        let name_subnets = |file: &mut InitFile| {
            v4(file).subnet_name = "s".into();
            file.ipv6_pool.as_mut().unwrap().subnet_name = "s".into();
        };
        refused(name_subnets, &["SpiderSubnets", "both named", "\"s\""]);
        let without_network = |file: &mut InitFile| {
            *v4(file) = DefaultPool { subnet_name: "s".into(), ..DefaultPool::default() };
        };
        refused(without_network, &["IPv4 pool s", "needs a subnet"]);
        refused(|file| settings(file).veth_mtu = Some(0), &["coordinator default", "vethMTU 0"]);
        refused(|file| settings(file).hijack_cidr = Some(vec!["x".into()]), &["hijackCIDR", "\"x\""]);
        refused(
            |file| settings(file).pod_rp_filter = Some(1),
            &["coordinator default", "podRPFilter 1 is strict"],
        );
        // Absent, it is what the API server fills in.
        let without = |file: &mut InitFile| {
            *settings(file) = Settings { dataplane: None, pod_rp_filter: Some(1), ..settings(file).clone() };
        };
        refused(without, &["podRPFilter 1 is strict"]);
        refused(|file| settings(file).mode = Some("sideways".into()), &["mode \"sideways\"", "use auto"]);
    }
}
