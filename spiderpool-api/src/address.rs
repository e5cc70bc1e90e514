//! How SpiderIPAddress objects are named and labelled.

use std::net::{IpAddr, Ipv6Addr};

/// The longest label value.
const LABEL_MAX: usize = 63;

/// The object's name: an IPv4 address as it is, an IPv6 address fully written out with `-` for `:`.
pub fn object_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => v6.segments().map(|segment| format!("{segment:04x}")).join("-"),
    }
}

/// The address that an object's name stands for; `None` if the name is not one that [`object_name`] makes.
pub fn of_object_name(name: &str) -> Option<IpAddr> {
    let ip = match name.parse() {
        Ok(v4) => IpAddr::V4(v4),
        Err(_) => IpAddr::V6(name.replace('-', ":").parse::<Ipv6Addr>().ok()?),
    };
    (object_name(ip) == name).then_some(ip)
}

/// The label value for a name: the name itself where it fits, else its beginning and a hash.
pub fn label_value(name: &str) -> String {
    if name.len() <= LABEL_MAX {
        return name.to_owned();
    }
    // FNV-1a: stable over versions and languages.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let beginning: String = name.chars().take(LABEL_MAX - 17).collect();
    format!("{beginning}-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_one_to_one() {
        for (ip, name) in [
            ("10.6.212.145", "10.6.212.145"),
            ("fd00:10:6::2e5", "fd00-0010-0006-0000-0000-0000-0000-02e5"),
            ("::", "0000-0000-0000-0000-0000-0000-0000-0000"),
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(object_name(ip), name);
            assert_eq!(of_object_name(name), Some(ip));
        }
        for name in ["", "a", "10.6.1", "fd00--1", "FD00-0010-0006-0000-0000-0000-0000-02e5"] {
            assert_eq!(of_object_name(name), None, "{name}");
        }
    }

    #[test]
    fn long_names_are_hashed_and_stay_apart() {
        assert_eq!(label_value("pool-1"), "pool-1");
        let (a, b) = (format!("{}a", "x".repeat(100)), format!("{}b", "x".repeat(100)));
        assert_eq!(label_value(&a).len(), LABEL_MAX);
        assert_ne!(label_value(&a), label_value(&b));
        assert_eq!(label_value(&"y".repeat(63)).len(), 63);
    }
}
