//! The map `node_devices`: the node's devices by which pods send.

use std::collections::BTreeMap;

use spiderpool_ebpf_common::maps::{DeviceKind, NodeDevice, names};

use crate::error::{MapError, ignore_missing};
use crate::load::Dataplane;

impl Dataplane {
    /// Makes these, by interface index, the only ones.
    pub fn devices_set(&mut self, devices: &BTreeMap<u32, DeviceKind>) -> Result<(), MapError> {
        let mut present = BTreeMap::new();
        for entry in &self.maps.devices {
            let (index, device) = entry.map_err(MapError::of(names::NODE_DEVICES))?;
            present.insert(index, device.kind);
        }
        for index in present.keys().filter(|index| !devices.contains_key(index)) {
            ignore_missing(self.maps.devices.remove(index)).map_err(MapError::of(names::NODE_DEVICES))?;
        }
        for (index, kind) in
            devices.iter().filter(|(index, kind)| present.get(index) != Some(&(**kind as u8)))
        {
            self.maps
                .devices
                .insert(index, NodeDevice::new(*kind), 0)
                .map_err(MapError::of(names::NODE_DEVICES))?;
        }
        Ok(())
    }
}
