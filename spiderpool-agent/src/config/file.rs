//! The configuration file, `conf.yml` of the ConfigMap `spiderpool-conf`.
//!
//! Keys that only the controller reads are not listed here.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use spiderpool_api::agent::DEFAULT_SOCKET;
use spiderpool_core::Unsupported;
use spiderpool_core::detection::Timing;
use spiderpool_core::ipam::KeptWorkloads;
use spiderpool_runtime::config_file::{Content, null_as_default};

use crate::ipam::Detection;

/// What the agent reads of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConfigFile {
    /// The unix socket; empty means the default one.
    #[serde(rename = "ipamUnixSocketPath", deserialize_with = "null_as_default")]
    socket: String,
    /// Whether pods get IPv4 addresses.
    #[serde(rename = "enableIPv4", deserialize_with = "null_as_default")]
    pub enable_ipv4: bool,
    /// Whether pods get IPv6 addresses.
    #[serde(rename = "enableIPv6", deserialize_with = "null_as_default")]
    pub enable_ipv6: bool,
    /// Whether the pods of StatefulSets keep their addresses.
    #[serde(deserialize_with = "null_as_default")]
    enable_stateful_set: bool,
    /// Whether virtual machines keep their addresses.
    #[serde(rename = "enableKubevirtStaticIP", deserialize_with = "null_as_default")]
    enable_kubevirt_static_ip: bool,
    /// Whether SpiderSubnets are in use.
    #[serde(deserialize_with = "null_as_default")]
    pub enable_spider_subnet: bool,
    /// Whether pools are made from subnets automatically.
    #[serde(deserialize_with = "null_as_default")]
    pub enable_auto_pool_for_application: bool,
    /// Whether the plugin probes for conflicting addresses.
    #[serde(rename = "enableIPConflictDetection", deserialize_with = "null_as_default")]
    pub enable_ip_conflict_detection: bool,
    /// Whether the plugin probes the gateway.
    #[serde(deserialize_with = "null_as_default")]
    pub enable_gateway_detection: bool,
    /// How the plugin probes, and what follows.
    #[serde(deserialize_with = "null_as_default")]
    detection: DetectionOptions,
    /// Whether the kernel probes for other owners of a pod's IPv6 addresses, for 1 to 2 s, before the pod uses them.
    #[serde(deserialize_with = "null_as_default")]
    pub enable_duplicate_address_detection: bool,
    /// Whether the agent sets the node's sysctls.
    #[serde(deserialize_with = "null_as_default")]
    pub tune_sysctl_config: bool,
    /// A cloud provider that assigns each address.
    #[serde(deserialize_with = "null_as_default")]
    iaas_network_provider: IaasNetworkProvider,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct IaasNetworkProvider {
    #[serde(deserialize_with = "null_as_default")]
    server_url: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DetectionOptions {
    #[serde(deserialize_with = "probes")]
    probes: Option<u32>,
    #[serde(deserialize_with = "interval")]
    interval_milliseconds: Option<u32>,
    #[serde(deserialize_with = "quarantine")]
    quarantine_seconds: Option<u32>,
}

fn probes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within(deserializer, "probes", 1..=10)
}

fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within(deserializer, "intervalMilliseconds", 10..=2000)
}

fn quarantine<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    within(deserializer, "quarantineSeconds", 60..=2_592_000)
}

/// A number that makes sense, if there is one.
fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    key: &str,
    range: RangeInclusive<u32>,
) -> Result<Option<u32>, D::Error> {
    let number = Option::<u32>::deserialize(deserializer)?;
    match number.filter(|number| !range.contains(number)) {
        Some(number) => {
            let (least, most) = range.into_inner();
            Err(D::Error::custom(format!("{key} {number} is not within {least} and {most}")))
        }
        None => Ok(number),
    }
}

/// How long nobody gets an address that somebody else was seen using: it is probed again only when a pod is to have it.
const QUARANTINE: Duration = Duration::from_hours(1);

impl ConfigFile {
    /// What the plugin probes for.
    pub fn detection(&self) -> Detection {
        let (default, options) = (Timing::default(), &self.detection);
        let interval = options.interval_milliseconds.map(|millis| Duration::from_millis(millis.into()));
        Detection {
            conflicts: self.enable_ip_conflict_detection,
            gateways: self.enable_gateway_detection,
            timing: Timing {
                probes: options.probes.unwrap_or(default.probes),
                interval: interval.unwrap_or(default.interval),
            },
        }
    }

    /// How long nobody gets an address that somebody else was seen using.
    pub fn quarantine_time(&self) -> Duration {
        self.detection.quarantine_seconds.map_or(QUARANTINE, |seconds| Duration::from_secs(seconds.into()))
    }

    /// Which workloads' pods leave their addresses to the next one.
    pub fn kept_workloads(&self) -> KeptWorkloads {
        KeptWorkloads {
            stateful_sets: self.enable_stateful_set,
            virtual_machines: self.enable_kubevirt_static_ip,
        }
    }

    /// Where the agent listens.
    pub fn socket(&self) -> &Path {
        Path::new(if self.socket.is_empty() { DEFAULT_SOCKET } else { &self.socket })
    }
}

impl Content for ConfigFile {
    fn unsupported(&self) -> Option<Unsupported> {
        let has_provider = !self.iaas_network_provider.server_url.is_empty();
        let keys = [(has_provider, Unsupported::IaasNetworkProvider)];
        keys.into_iter().find_map(|(is_set, feature)| is_set.then_some(feature))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_keys_are_zero_and_unknown_ones_ignored() {
        let file = ConfigFile::parse("enableIPv4: true\nclusterSubnetDefaultFlexibleIPNumber: 1\n").unwrap();
        assert!(file.enable_ipv4 && !file.enable_ipv6);
        assert_eq!(file.kept_workloads(), KeptWorkloads::default());
        assert!(!file.enable_duplicate_address_detection);
        assert_eq!(file.socket(), Path::new("/var/run/spidernet/spiderpool.sock"));
        assert_eq!(ConfigFile::parse("").unwrap(), ConfigFile::default());
    }

    #[test]
    fn a_whole_document_as_the_chart_writes_it() {
        let file = ConfigFile::parse(
            "ipamUnixSocketPath: /run/x.sock\nenableIPv4: true\nenableIPv6: true\nenableStatefulSet: true\n\
             enableKubevirtStaticIP: true\nenableSpiderSubnet: false\nenableAutoPoolForApplication: false\n\
             enableIPConflictDetection: false\nenableGatewayDetection: false\ntuneSysctlConfig: true\n\
             enableDuplicateAddressDetection: true\n\
             podResourceInject:\n  enabled: false\n  namespacesExclude: [kube-system]\n\
             iaasNetworkProvider:\n  serverUrl: \"\"\n  httpRequestTimeout: 30s\nagent:\n  networkResourcePlugin:\n",
        )
        .unwrap();
        assert_eq!(file.socket(), Path::new("/run/x.sock"));
        assert_eq!(file.unsupported(), None);
        assert!(file.enable_duplicate_address_detection);
        assert_eq!(file.kept_workloads(), KeptWorkloads { stateful_sets: true, virtual_machines: true });
    }

    #[test]
    fn unsupported_features_are_refused_by_key() {
        let file = ConfigFile::parse("iaasNetworkProvider: {serverUrl: http://x}").unwrap();
        let refused = file.unsupported().unwrap().to_string();
        assert!(refused.contains("iaasNetworkProvider.serverUrl"), "{refused}");
    }

    #[test]
    fn what_is_probed_for_is_off_unless_it_is_set() {
        let off = ConfigFile::parse("detection:\n").unwrap();
        assert!(!off.detection().conflicts && !off.detection().gateways);
        assert_eq!(off.detection().timing, Timing::default());
        assert_eq!(off.quarantine_time(), Duration::from_hours(1));
        let on = "enableIPConflictDetection: true\nenableGatewayDetection: true\ndetection:\n  probes: 5\n  \
                  intervalMilliseconds: 70\n  quarantineSeconds: 600\n";
        let on = ConfigFile::parse(on).unwrap();
        assert!(on.detection().conflicts && on.detection().gateways);
        assert_eq!(on.detection().timing, Timing { probes: 5, interval: Duration::from_millis(70) });
        assert_eq!((on.quarantine_time(), on.unsupported()), (Duration::from_mins(10), None));
        let error = ConfigFile::parse("detection: {probes: 0}").unwrap_err().to_string();
        assert!(error.contains("detection: probes 0 is not within 1 and 10"), "{error}");
    }

    #[test]
    fn a_wrong_type_names_its_key() {
        let error = ConfigFile::parse("enableIPv4: [1]").unwrap_err().to_string();
        assert!(error.contains("enableIPv4"), "{error}");
    }
}
