//! A SpiderIPAddress object from its spec: the name is the address, the labels are for selecting.

use ipnet::IpNet;
use spiderpool_api::crd::{SpiderIPAddress, SpiderIPAddressSpec};
use spiderpool_api::labels;
use spiderpool_core::ipam::address_name::{label_value, object_name};

/// The object to create for an address.
pub(super) fn of_spec(net: IpNet, spec: SpiderIPAddressSpec) -> SpiderIPAddress {
    let labels = [
        (labels::ADDRESS_POOL, label_value(&spec.pool)),
        (labels::ADDRESS_POD_UID, label_value(&spec.pod_uid)),
        (labels::ADDRESS_NODE, label_value(spec.node.as_deref().unwrap_or_default())),
    ];
    let mut object = SpiderIPAddress::new(&object_name(net.addr()), spec);
    object.spec.address = net.to_string();
    object.metadata.labels = Some(labels.map(|(key, value)| (key.to_owned(), value)).into());
    object
}
