//! VLANs: create.

use rtnetlink::LinkVlan;
use rtnetlink::packet_route::link::VlanProtocol;
use spiderpool_core::names::IfName;

use super::{Netlink, NetlinkError};

impl Netlink {
    /// Creates a VLAN (802.1Q) on the link of index `parent`, down. It has the parent's MAC and MTU.
    pub async fn add_vlan(&mut self, name: &IfName, parent: u32, id: u16) -> Result<(), NetlinkError> {
        let message = LinkVlan::new(name.as_str(), parent, id).protocol(VlanProtocol::Ieee8021Q).build();
        let request = self.builder().link().add(message);
        self.execute("add VLAN", name, request.execute()).await
    }
}
