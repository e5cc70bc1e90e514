//! What is different where rules steer packets (`dataplane: policy`): they choose a route, and translate nothing.

use std::net::IpAddr;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::Hosts;

impl Hosts {
    /// The NIC by which the pod's node comes to underlay addresses.
    pub(super) fn node_nic(&self) -> &'static str {
        match self.setting.dataplane {
            Dataplane::Ebpf => "sp0",
            Dataplane::Policy => "eth0",
        }
    }

    /// What the cluster sees of a socket that is bound to an underlay address.
    pub(super) fn bound_source(&self, bound: IpAddr) -> IpAddr {
        match self.setting.dataplane {
            Dataplane::Ebpf => self.pod.main.get(Family::of(bound)),
            Dataplane::Policy => bound,
        }
    }

    /// The NIC by which the answers of the cluster's pods come to such a socket, and its requests leave; `None` if not the
    /// same: rules send by eth0, and the answer is for an address of the underlay.
    pub(super) fn bound_nic(&self) -> Option<&'static str> {
        (self.setting.dataplane == Dataplane::Ebpf).then_some("eth0")
    }

    /// What a Service's endpoint sees of such a socket, where it sees `of_eth0` of others. What does not come from a pod CIDR,
    /// kube-proxy masquerades.
    pub(super) fn bound_sources_of_service(&self, of_eth0: &[IpAddr], family: Family) -> Vec<IpAddr> {
        match self.setting.dataplane {
            Dataplane::Ebpf => of_eth0.to_vec(),
            Dataplane::Policy => self.node_sources(family),
        }
    }
}
