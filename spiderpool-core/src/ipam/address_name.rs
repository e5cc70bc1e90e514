//! How an address becomes the name of its object, and a name the value of a label.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

use super::pick::fnv1a;

/// A name that no address has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not the name of an address: 10.6.212.145 or fd00-0010-0006-0000-0000-0000-0000-02e5")]
pub struct AddressNameError(String);

/// The object's name: an IPv4 address as it is, an IPv6 address in full with `-` for `:`. One address, one name.
pub fn object_name(addr: IpAddr) -> String {
    match addr {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|segment| format!("{segment:04x}")).join("-"),
    }
}

/// The address that an object is named by.
pub fn parse_object_name(name: &str) -> Result<IpAddr, AddressNameError> {
    let addr = if name.contains('-') {
        name.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::from)
    } else {
        name.parse::<Ipv4Addr>().map(IpAddr::from)
    };
    addr.ok().filter(|addr| object_name(*addr) == name).ok_or_else(|| AddressNameError(name.to_owned()))
}

/// A label's value ends at 63 characters.
pub const LABEL_LIMIT: usize = 63;
/// Hash digits behind the beginning of a longer name.
const HASH_DIGITS: usize = 16;

/// A name as the value of a label: itself, or when it is too long its beginning and a hash of the whole.
/// Labels narrow a list; what decides is the name in the object's spec.
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_LIMIT {
        return name.to_owned();
    }
    let beginning: String = name.chars().take(LABEL_LIMIT - HASH_DIGITS - 1).collect();
    format!("{beginning}-{:0HASH_DIGITS$x}", fnv1a(name.bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::NodeName;

    #[test]
    fn names_of_addresses() {
        let name = |text: &str| object_name(text.parse().unwrap());
        assert_eq!(name("10.6.212.145"), "10.6.212.145");
        assert_eq!(name("fd00:10:6::2e5"), "fd00-0010-0006-0000-0000-0000-0000-02e5");
        for other in
            ["", "10.6.1", "010.6.1.1", "fd00--1", "FD00-0010-0006-0000-0000-0000-0000-02e5", "a-b", "::1"]
        {
            assert!(parse_object_name(other).is_err(), "{other}");
        }
    }

    #[test]
    fn long_names_become_labels_that_differ() {
        assert_eq!(label_value("cn-hangzhou.172.16.2.5"), "cn-hangzhou.172.16.2.5");
        assert_eq!(label_value(&"a".repeat(63)), "a".repeat(63));
        let (one, two) =
            (label_value(&format!("{}x", "a".repeat(80))), label_value(&format!("{}y", "a".repeat(80))));
        assert_eq!((one.len(), two.len()), (63, 63));
        assert_ne!(one, two);
    }

    proptest! {
        #[test]
        fn a_name_is_its_address(v4 in any::<u32>(), v6 in any::<u128>()) {
            for addr in [IpAddr::from(Ipv4Addr::from(v4)), IpAddr::from(Ipv6Addr::from(v6))] {
                let name = object_name(addr);
                prop_assert_eq!(parse_object_name(&name), Ok(addr));
                // The rule for object names is that of node names.
                prop_assert!(name.parse::<NodeName>().is_ok());
            }
        }

        #[test]
        fn a_label_value_is_one(name in "[a-z0-9]([a-z0-9.-]{0,250}[a-z0-9])?") {
            let value = label_value(&name);
            prop_assert!(value.len() <= 63);
            prop_assert!(value.starts_with(|c: char| c.is_ascii_alphanumeric()));
            prop_assert!(value.ends_with(|c: char| c.is_ascii_alphanumeric()));
        }
    }
}
