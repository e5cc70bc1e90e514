//! What this version does not do yet, one variant per feature, each with what to do instead.
//!
//! A feature that lands deletes its variant, and the compiler finds every place that refuses it. What the Helm chart
//! refuses by its values is in `charts/spiderpool/templates/_not_served.tpl`.

use thiserror::Error;

use crate::names::IfName;

/// A feature that was asked for and is not there. Its text says what, and what to do instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Unsupported {
    /// Probing for addresses and gateways by ipvlan.
    #[error(
        "conflict and gateway detection on {0}, an ipvlan NIC, is not supported yet: use a macvlan network, or set \
         enableIPConflictDetection and enableGatewayDetection to false"
    )]
    DetectionOnIpvlan(IfName),
    /// The same by something that is not Ethernet.
    #[error(
        "conflict and gateway detection on {0}, a NIC that does not carry Ethernet frames, is not supported yet: set \
         enableIPConflictDetection and enableGatewayDetection to false"
    )]
    DetectionLinkLayer(IfName),
    /// A MAC address that comes with an address.
    #[error(
        "a MAC address chosen by the provider of the IP address is not supported yet: leave \
         iaasNetworkProvider.serverUrl empty"
    )]
    ProviderMac,
    /// A cloud that is asked for each address.
    #[error("iaasNetworkProvider.serverUrl is not supported yet: leave it empty")]
    IaasNetworkProvider,

    /// Where pods send by a switch.
    #[error(
        "ebpf.nodeLink node is not supported yet where the host veths of pods are ports of a bridge or of Open vSwitch: what \
         comes from them cannot be told from what comes from elsewhere; set it to all"
    )]
    NodeLinkOnSwitch,
    /// A first NIC that is neither veth nor netkit to this node.
    #[error(
        "the pod's first NIC {nic} ({kind}), which is not a veth or netkit pair whose other end is on this node, is not \
         supported yet: use a network whose pods have such a pair"
    )]
    ClusterNicKind {
        /// The NIC.
        nic: IfName,
        /// Its kind, as the kernel names it.
        kind: String,
    },
    /// InfiniBand and other link layers.
    #[error(
        "{0}, a NIC that does not carry Ethernet frames, is not supported yet: leave coordinator out of its network"
    )]
    LinkLayer(IfName),
    /// Moving one next hop of several.
    #[error(
        "moving the default route off {0}, where it is a next hop of a multipath route, is not supported yet: give \
         the NIC a default route of its own, or set tunePodRoutes to false"
    )]
    MultipathDefaultRoute(IfName),

    /// Pools by the subnet of the master NIC.
    #[error(
        "match_master_subnet in the CNI configuration of NIC {0} is not supported yet: set it to false and name the \
         IPPools"
    )]
    MatchMasterSubnet(IfName),
    /// Freeing what a running pod does not show.
    #[error(
        "freeing addresses of running pods whose status has none is not supported yet: set it to false; addresses \
         of pods that are gone or finished are freed"
    )]
    GcOfRunningPods,

    /// VLANs that a provider chooses.
    #[error(
        "vlanMode auto, which has the provider of the IP address choose the VLAN, is not supported yet: set it to \
         manual and set vlanID"
    )]
    VlanModeAuto,
    /// Pools by the subnet of the master NIC, in a SpiderMultusConfig.
    #[error("matchMasterSubnet is not supported yet: set it to false and name the IPPools")]
    SriovMatchMasterSubnet,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_and_what_to_do_instead() {
        let nic = || "net1".parse::<IfName>().unwrap();
        for (feature, what, advice) in [
            (Unsupported::LinkLayer(nic()), "net1", "leave coordinator out"),
            (Unsupported::MatchMasterSubnet(nic()), "match_master_subnet", "set it to false"),
        ] {
            let text = feature.to_string();
            let (before, after) = text.split_once(" is not supported yet: ").unwrap();
            assert!(before.contains(what) && after.contains(advice), "{text}");
        }
    }
}
