//! By which NICs a pod's packets go, and with which addresses: what its mode and dataplane make of them. Rules
//! (`dataplane: policy`) choose a route and translate nothing, and in underlay mode nothing needs it.

use std::net::IpAddr;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::{DefaultRoute, Hosts, Mode, RouteHints};

impl Hosts {
    pub(super) fn is_underlay(&self) -> bool {
        self.setting.mode == Mode::Underlay
    }

    /// The NIC by which node, Services and overlay pods are reached.
    pub(super) fn cluster_nic(&self) -> &'static str {
        match self.setting.mode {
            Mode::Overlay => "eth0",
            Mode::Underlay => "veth0",
        }
    }

    /// The NIC by which the pod's node comes to underlay addresses.
    pub(super) fn node_nic(&self) -> &'static str {
        match (self.setting.mode, self.setting.dataplane) {
            (Mode::Underlay, _) => "veth0",
            (Mode::Overlay, Dataplane::Ebpf) => "sp0",
            (Mode::Overlay, Dataplane::Policy) => "eth0",
        }
    }

    /// Whether all that leaves for the cluster carries the cluster NIC's address, whatever a socket is bound to.
    fn translates(&self) -> bool {
        self.setting.mode == Mode::Overlay && self.setting.dataplane == Dataplane::Ebpf
    }

    /// What the cluster sees of a socket that is bound to nothing.
    pub(super) fn own_source(&self, family: Family) -> IpAddr {
        // Route hints and rules have the first NIC's address; without them it is the default route's.
        let by_default = self.is_underlay() && self.setting.hints == RouteHints::Never;
        if by_default {
            self.own_address(self.setting.default_route.nic(), family)
        } else {
            self.pod.main.get(family)
        }
    }

    /// What the cluster sees of a socket that is bound to an underlay address.
    pub(super) fn bound_source(&self, bound: IpAddr) -> IpAddr {
        if self.translates() { self.pod.main.get(Family::of(bound)) } else { bound }
    }

    /// The NIC by which requests to pods of another node's overlay leave and their answers come; `None` if not the same: what has
    /// an underlay address is answered there.
    pub(super) fn remote_nic(&self, is_bound: bool) -> Option<&'static str> {
        let is_same = self.translates() || self.setting.mode == Mode::Overlay && !is_bound;
        is_same.then(|| self.cluster_nic())
    }

    /// What a Service's endpoint sees, where it sees `of_overlay` of what comes from a pod CIDR. What does not, kube-proxy masquerades.
    pub(super) fn sources_of_service(
        &self,
        of_overlay: &[IpAddr],
        is_bound: bool,
        family: Family,
    ) -> Vec<IpAddr> {
        if self.translates() || self.setting.mode == Mode::Overlay && !is_bound {
            of_overlay.to_vec()
        } else {
            self.node_sources(family)
        }
    }

    /// By which NIC the pod reaches what is behind the default route, and what is seen of it there.
    pub(super) fn default_way(&self, family: Family) -> (&'static str, Vec<IpAddr>) {
        let nic = self.setting.default_route.nic();
        if self.setting.mode == Mode::Overlay && self.setting.default_route == DefaultRoute::Eth0 {
            (nic, self.node_sources(family))
        } else {
            (nic, vec![self.own_address(nic, family)])
        }
    }
}
