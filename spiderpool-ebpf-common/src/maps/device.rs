//! The node's network devices by which pods send, so that their packets' sources are not compared with routes: values of
//! `node_devices`.

/// What is behind a device of the node.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Pods of this node: veth or netkit.
    Pods = 1,
    /// Pods of other nodes: a tunnel.
    Tunnel = 2,
}

/// Value of `node_devices`. A device that is not in the map may be an uplink: anybody may have sent what comes by it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeDevice {
    /// A [`DeviceKind`].
    pub kind: u8,
    #[doc(hidden)]
    pub _pad: [u8; 3],
}

impl NodeDevice {
    /// Value for a kind.
    pub const fn new(kind: DeviceKind) -> Self {
        Self { kind: kind as u8, _pad: [0; 3] }
    }
}
