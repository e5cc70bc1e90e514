//! How SpiderIPAddress objects are named and labelled.

use std::net::IpAddr;

pub use spiderpool_core::ipam::address_name::{label_value, object_name, parse_object_name};

/// The address that an object's name stands for; `None` if the name is not one that [`object_name`] makes.
pub fn of_object_name(name: &str) -> Option<IpAddr> {
    parse_object_name(name).ok()
}
