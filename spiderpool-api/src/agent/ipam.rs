//! Allocate and release: bodies of `/v1/ipam/*`.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spiderpool_core::detection::Timing;
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::{ContainerId, IfName, PodName, PodUid};

use super::OpenNetns;

/// Body of POST `/v1/ipam/ip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamAddArgs {
    /// `CNI_CONTAINERID`: the pod sandbox.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `CNI_IFNAME`: the NIC that is being set up.
    pub if_name: IfName,
    /// `CNI_NETNS`.
    pub net_namespace: String,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
    /// UID of the pod; empty on the wire when the runtime does not pass it.
    #[serde(rename = "podUID", with = "optional_uid")]
    pub pod_uid: Option<PodUid>,
    /// The CNI network's name (`name` of the configuration). Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// IPv4 pools of the CNI configuration.
    #[serde(default, rename = "defaultIPv4IPPool", skip_serializing_if = "Option::is_none")]
    pub default_ipv4_ip_pool: Option<Vec<String>>,
    /// IPv6 pools of the CNI configuration.
    #[serde(default, rename = "defaultIPv6IPPool", skip_serializing_if = "Option::is_none")]
    pub default_ipv6_ip_pool: Option<Vec<String>>,
    /// No default route for this NIC.
    #[serde(default)]
    pub clean_gateway: bool,
    /// Take a pool whose subnet fits the master NIC (SR-IOV).
    #[serde(default)]
    pub match_master_subnet: bool,
    /// Addresses that the runtime asks for, at most one of a family. Our addition.
    #[serde(default, rename = "requestedIPs", skip_serializing_if = "Vec::is_empty")]
    pub requested_ips: Vec<IpAddr>,
    /// Addresses that this request has been given already, and that others use on the NIC's link: it is to get other ones. Our
    /// addition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<AddressConflict>,
    /// The namespace of `net_namespace`, found where that path is not the agent's. Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_netns: Option<OpenNetns>,
}

impl IpamAddArgs {
    /// For a NIC of a pod, with nothing that is optional.
    pub fn new(container_id: ContainerId, if_name: IfName, pod: PodName, pod_uid: Option<PodUid>) -> Self {
        Self {
            container_id,
            if_name,
            net_namespace: String::new(),
            pod,
            pod_uid,
            network: None,
            default_ipv4_ip_pool: None,
            default_ipv6_ip_pool: None,
            clean_gateway: false,
            match_master_subnet: false,
            requested_ips: Vec::new(),
            conflicts: Vec::new(),
            open_netns: None,
        }
    }
}

/// An address that somebody else uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConflict {
    /// The address.
    pub address: IpAddr,
    /// Who answers for it.
    pub mac: MacAddr,
}

/// How the link is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectionTiming {
    /// How often.
    pub probes: u32,
    /// How long an answer is waited for after each time.
    pub interval_milliseconds: u32,
}

impl From<Timing> for DetectionTiming {
    fn from(timing: Timing) -> Self {
        let interval = u32::try_from(timing.interval.as_millis()).unwrap_or(u32::MAX);
        Self { probes: timing.probes, interval_milliseconds: interval }
    }
}

impl From<DetectionTiming> for Timing {
    fn from(timing: DetectionTiming) -> Self {
        let interval = Duration::from_millis(timing.interval_milliseconds.into());
        Self { probes: timing.probes, interval }
    }
}

/// Answer of POST `/v1/ipam/ip`: what the pod holds, over all its NICs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamAddResponse {
    /// Addresses; `null` is accepted as none.
    #[serde(default, deserialize_with = "super::ipam::null_as_default")]
    pub ips: Vec<IpConfig>,
    /// Routes.
    #[serde(default, deserialize_with = "super::ipam::null_as_default")]
    pub routes: Vec<Route>,
    /// Whether the kernel probes the link for another owner of an IPv6 address before the NIC uses it. `None`, as
    /// from upstream's agent, leaves that to the node. Our addition.
    #[serde(default, rename = "enableDuplicateAddressDetection", skip_serializing_if = "Option::is_none")]
    pub enable_duplicate_address_detection: Option<bool>,
    /// How conflicts and gateways are probed for, where addresses ask for that; `None`, as from upstream's agent, is the
    /// default. Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detection: Option<DetectionTiming>,
    /// Whether neighbors are told of the addresses when the NIC comes up; `None`, as from upstream's agent: they are. They are
    /// not of those that another pod uses from which a virtual machine is still to move. Our addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub announce: Option<bool>,
}

/// One address of one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpConfig {
    /// 4 or 6.
    pub version: i64,
    /// The address with its prefix length.
    pub address: String,
    /// The NIC it is for.
    pub nic: String,
    /// The pool it comes from.
    #[serde(default)]
    pub ip_pool: String,
    /// The pool's gateway.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// VLAN id, 0 for none.
    #[serde(default)]
    pub vlan: i64,
    /// MAC address wanted by an IaaS provider.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Probe the gateway before use.
    #[serde(default)]
    pub enable_gateway_detection: bool,
    /// Probe for a conflicting address before use.
    #[serde(default, rename = "enableIPConflictDetection")]
    pub enable_ip_conflict_detection: bool,
}

/// One route of one NIC.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// The NIC.
    #[serde(default, deserialize_with = "super::ipam::null_as_default")]
    pub if_name: String,
    /// Destination in CIDR form.
    pub dst: String,
    /// Next hop.
    pub gw: String,
}

/// Body of DELETE `/v1/ipam/ip`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamDelArgs {
    /// `CNI_CONTAINERID`: the pod sandbox that goes away.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub if_name: IfName,
    /// `CNI_NETNS`, may be empty.
    #[serde(default)]
    pub net_namespace: String,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
    /// UID of the pod; empty on the wire when the runtime does not pass it.
    #[serde(rename = "podUID", with = "optional_uid")]
    pub pod_uid: Option<PodUid>,
}

impl IpamDelArgs {
    /// For a NIC of a pod, with nothing that is optional.
    pub fn new(container_id: ContainerId, if_name: IfName, pod: PodName, pod_uid: Option<PodUid>) -> Self {
        Self { container_id, if_name, net_namespace: String::new(), pod, pod_uid }
    }
}

/// Body of DELETE `/v1/ipam/ips`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpamBatchDelArgs {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `CNI_NETNS`, may be empty.
    #[serde(default)]
    pub net_namespace: String,
    /// The pod.
    #[serde(flatten)]
    pub pod: PodName,
    /// UID of the pod; empty on the wire when the runtime does not pass it.
    #[serde(rename = "podUID", with = "optional_uid")]
    pub pod_uid: Option<PodUid>,
    /// The release is asked for because of an address conflict.
    #[serde(default, rename = "isReleaseConflictIPs")]
    pub is_release_conflict_ips: bool,
}

/// Go's encoder writes `null` for an empty slice or string pointer.
pub fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A UID that is an empty text on the wire when it is not known.
mod optional_uid {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};
    use spiderpool_core::names::PodUid;

    #[expect(clippy::ref_option, reason = "serde calls it with a reference to the field")]
    pub(super) fn serialize<S: Serializer>(uid: &Option<PodUid>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(uid.as_ref().map_or("", PodUid::as_str))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PodUid>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn args(uid: &str) -> Value {
        json!({
            "containerID": "c", "ifName": "net1", "netNamespace": "/n", "podNamespace": "ns", "podName": "web-0",
            "podUID": uid, "cleanGateway": false, "matchMasterSubnet": false,
        })
    }

    /// Upstream's plugins and agents have these members.
    #[test]
    fn a_pod_is_three_members_on_the_wire() {
        for uid in ["", "7f1d"] {
            let parsed: IpamAddArgs = serde_json::from_value(args(uid)).unwrap();
            assert_eq!(parsed.pod.to_string(), "ns/web-0");
            assert_eq!(parsed.pod_uid.as_ref().map_or("", PodUid::as_str), uid);
            assert_eq!(serde_json::to_value(&parsed).unwrap(), args(uid));
        }
        let mut missing = args("");
        missing.as_object_mut().unwrap().remove("podUID");
        assert!(serde_json::from_value::<IpamDelArgs>(missing).is_err(), "upstream requires it");
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for (member, value) in
            [("containerID", ""), ("ifName", "much-too-long-a-name"), ("podName", "a/b"), ("podUID", "a b")]
        {
            let mut args = args("u");
            args[member] = json!(value);
            let error = serde_json::from_value::<IpamAddArgs>(args).unwrap_err().to_string();
            assert!(error.contains("is invalid: "), "{error}");
        }
    }
}
