//! What the annotations of a pod template ask of SpiderSubnets. JSON as Go reads it, as for pools.

use std::collections::BTreeMap;
use std::num::IntErrorKind;

use serde::Deserialize;

use crate::go_json::from_go_json;
use crate::ip::Family;
use crate::ipam::IpamError;
use crate::ipam::annotation_key::{IPPOOL_IP_NUMBER, IPPOOL_RECLAIM, SUBNET, SUBNETS};
use crate::names::{IfName, PoolName};

/// The NIC that `subnet` is for if it names none.
const FIRST_NIC: &str = "eth0";

/// The pools that an application wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetRequest {
    /// Where their addresses come from, by NIC.
    pub nics: NicSubnets,
    /// How many addresses each has; `None` for as many as the cluster's default says.
    pub size: Option<PoolSize>,
    /// Whether they go when the application does.
    pub reclaim: bool,
}

/// Subnets by NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicSubnets {
    /// `subnets`: of the NICs that it names, and of no others.
    Named(Vec<NicSubnet>),
    /// `subnet`: of whichever NIC is added; the pool is named after this one.
    Any(NicSubnet),
}

/// The subnets of a NIC, at most one of each family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NicSubnet {
    /// The NIC.
    pub nic: IfName,
    /// The IPv4 subnet.
    pub ipv4: Option<SubnetName>,
    /// The IPv6 subnet.
    pub ipv6: Option<SubnetName>,
}

/// The name of a SpiderSubnet: it has the rules of a pool's.
pub type SubnetName = PoolName;

/// How many addresses a pool has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolSize {
    /// So many.
    Fixed(u32),
    /// So many more than the application has pods.
    Flexible(u32),
}

impl NicSubnet {
    /// The subnet of a family.
    pub fn of(&self, family: Family) -> Option<&SubnetName> {
        match family {
            Family::V4 => self.ipv4.as_ref(),
            Family::V6 => self.ipv6.as_ref(),
        }
    }
}

impl NicSubnets {
    /// What a NIC draws from; `None` if nothing is listed for it.
    pub fn of_nic(&self, nic: &IfName) -> Option<&NicSubnet> {
        match self {
            Self::Named(nics) => nics.iter().find(|entry| entry.nic == *nic),
            Self::Any(entry) => Some(entry),
        }
    }

    /// The pools that are to be made: one for each NIC and family.
    pub fn all(&self) -> &[NicSubnet] {
        match self {
            Self::Named(nics) => nics,
            Self::Any(entry) => std::slice::from_ref(entry),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item {
    interface: String,
    ipv4: Vec<String>,
    ipv6: Vec<String>,
}

fn invalid(key: &'static str, cause: impl std::fmt::Display) -> IpamError {
    IpamError::Annotation { key, cause: cause.to_string() }
}

/// What the annotations ask for; `None` if they speak of no subnet.
pub fn parse_request(annotations: &BTreeMap<String, String>) -> Result<Option<SubnetRequest>, IpamError> {
    let get = |key: &str| annotations.get(key).map(String::as_str);
    let nics = match (get(SUBNETS), get(SUBNET)) {
        (Some(text), _) => NicSubnets::Named(parse_named(text)?),
        (None, Some(text)) => {
            let item: Item = from_go_json(text).map_err(|error| invalid(SUBNET, error))?;
            NicSubnets::Any(parse_item(SUBNET, &item, Some(FIRST_NIC))?)
        }
        (None, None) => return Ok(None),
    };
    let size = get(IPPOOL_IP_NUMBER).map(parse_size).transpose()?;
    let reclaim = get(IPPOOL_RECLAIM).map(parse_reclaim).transpose()?.unwrap_or(true);
    Ok(Some(SubnetRequest { nics, size, reclaim }))
}

fn parse_named(text: &str) -> Result<Vec<NicSubnet>, IpamError> {
    let items: Option<Vec<Item>> = from_go_json(text).map_err(|error| invalid(SUBNETS, error))?;
    let items = items.unwrap_or_default();
    if items.is_empty() {
        return Err(invalid(SUBNETS, "value requires at least one item"));
    }
    let mut nics: Vec<NicSubnet> = Vec::with_capacity(items.len());
    for item in &items {
        let entry = parse_item(SUBNETS, item, None)?;
        if nics.iter().any(|earlier| earlier.nic == entry.nic) {
            return Err(invalid(SUBNETS, format!("duplicate interface {}", entry.nic)));
        }
        // A pod has at most one address of a subnet.
        for family in Family::ALL {
            let is_same =
                |earlier: &NicSubnet| entry.of(family).is_some() && earlier.of(family) == entry.of(family);
            if let Some(earlier) = nics.iter().find(|earlier| is_same(earlier)) {
                let subnet = entry.of(family).map_or("", PoolName::as_str);
                let cause = format!("SpiderSubnet {subnet} is listed for {} and {}", earlier.nic, entry.nic);
                return Err(invalid(SUBNETS, cause));
            }
        }
        nics.push(entry);
    }
    Ok(nics)
}

/// Of each family the first subnet counts.
fn parse_item(key: &'static str, item: &Item, default_nic: Option<&str>) -> Result<NicSubnet, IpamError> {
    let nic = Some(item.interface.as_str()).filter(|nic| !nic.is_empty()).or(default_nic);
    let nic = nic.ok_or_else(|| invalid(key, "an item has no interface"))?;
    let first = |names: &[String]| {
        let name = names.first().map(|name| name.parse::<SubnetName>());
        name.transpose().map_err(|error| invalid(key, error))
    };
    let entry = NicSubnet {
        nic: nic.parse().map_err(|error| invalid(key, error))?,
        ipv4: first(&item.ipv4)?,
        ipv6: first(&item.ipv6)?,
    };
    if entry.ipv4.is_none() && entry.ipv6.is_none() {
        return Err(invalid(key, format!("no SpiderSubnet is listed for {}", entry.nic)));
    }
    Ok(entry)
}

/// `N` or `+N`.
fn parse_size(text: &str) -> Result<PoolSize, IpamError> {
    let (digits, size): (_, fn(u32) -> PoolSize) = match text.strip_prefix('+') {
        Some(digits) => (digits, PoolSize::Flexible),
        None => (text, PoolSize::Fixed),
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number =
        is_number.then(|| digits.parse::<u32>()).transpose().map_err(|error| match error.kind() {
            IntErrorKind::PosOverflow => invalid(IPPOOL_IP_NUMBER, format!("{text} is too large")),
            _ => invalid(IPPOOL_IP_NUMBER, error),
        })?;
    number.map(size).ok_or_else(|| {
        invalid(
            IPPOOL_IP_NUMBER,
            format!("{text:?} is neither a number of addresses, 3, nor one beside the pods, +1"),
        )
    })
}

/// As Go's `strconv.ParseBool` reads it.
fn parse_reclaim(text: &str) -> Result<bool, IpamError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(invalid(IPPOOL_RECLAIM, format!("{text:?} is neither true nor false"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<Option<SubnetRequest>, String> {
        let annotations = pairs.iter().map(|(key, text)| ((*key).to_owned(), (*text).to_owned())).collect();
        parse_request(&annotations).map_err(|error| error.to_string())
    }

    #[track_caller]
    fn check(pairs: &[(&str, &str)], nics: &[&str], size: Option<PoolSize>, reclaim: bool) {
        let request = parse(pairs).unwrap().unwrap();
        let name = |name: &Option<SubnetName>| name.as_ref().map_or("-", PoolName::as_str).to_owned();
        let show = |nic: &NicSubnet| format!("{} {} {}", nic.nic, name(&nic.ipv4), name(&nic.ipv6));
        assert_eq!(request.nics.all().iter().map(show).collect::<Vec<_>>(), nics);
        assert_eq!((request.size, request.reclaim), (size, reclaim));
    }

    #[test]
    fn both_annotations_are_read_and_the_list_wins() {
        assert_eq!(parse(&[("ipam.spidernet.io/ippool", "{}")]), Ok(None));
        let one = (SUBNET, r#"{"ipv4":["a","ignored"],"ipv6":["b"]}"#);
        check(&[one], &["eth0 a b"], None, true);
        check(&[(SUBNET, r#"{"Interface":"net1","IPv6":["b"]}"#)], &["net1 - b"], None, true);
        let list = (
            SUBNETS,
            r#"[{"interface":"eth0","ipv4":["a"]},{"interface":"net1","ipv4":["c"],"ipv6":["d"]}]"#,
        );
        check(&[one, list], &["eth0 a -", "net1 c d"], None, true);
        let named = parse(&[list]).unwrap().unwrap().nics;
        assert!(
            named.of_nic(&"net1".parse().unwrap()).is_some()
                && named.of_nic(&"net2".parse().unwrap()).is_none()
        );
        let any = parse(&[one]).unwrap().unwrap().nics;
        assert!(any.of_nic(&"net2".parse().unwrap()).is_some());
    }

    #[test]
    fn sizes_are_fixed_or_beside_the_pods() {
        let one = (SUBNET, r#"{"ipv4":["a"]}"#);
        for (text, size) in
            [("3", PoolSize::Fixed(3)), ("+1", PoolSize::Flexible(1)), ("0", PoolSize::Fixed(0))]
        {
            check(
                &[one, (IPPOOL_IP_NUMBER, text), (IPPOOL_RECLAIM, "False")],
                &["eth0 a -"],
                Some(size),
                false,
            );
        }
        for text in ["-1", "", "+", "++1", "1+2", "3 ", "x"] {
            let error = parse(&[one, (IPPOOL_IP_NUMBER, text)]).unwrap_err();
            assert!(
                error.contains("'ipam.spidernet.io/ippool-ip-number': ") && error.contains("neither"),
                "{error}"
            );
        }
        assert!(parse(&[one, (IPPOOL_IP_NUMBER, "4294967296")]).unwrap_err().contains("is too large"));
        assert!(parse(&[one, (IPPOOL_RECLAIM, "yes")]).unwrap_err().contains("neither true nor false"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (key, text, cause) in [
            (SUBNET, "junk", "expected"),
            (SUBNET, "{}", "no SpiderSubnet is listed for eth0"),
            (SUBNET, r#"{"ipv4":[""]}"#, "is invalid"),
            (SUBNETS, "[]", "at least one item"),
            (SUBNETS, r#"[{"ipv4":["a"]}]"#, "an item has no interface"),
            (SUBNETS, r#"[{"interface":"eth0"}]"#, "no SpiderSubnet is listed for eth0"),
            (
                SUBNETS,
                r#"[{"interface":"a","ipv4":["x"]},{"interface":"a","ipv4":["y"]}]"#,
                "duplicate interface a",
            ),
            (
                SUBNETS,
                r#"[{"interface":"a","ipv4":["x"]},{"interface":"b","ipv4":["x"]}]"#,
                "x is listed for a and b",
            ),
        ] {
            let error = parse(&[(key, text)]).unwrap_err();
            assert!(
                error.starts_with("wrong input, ") && error.contains(key) && error.contains(cause),
                "{error}"
            );
        }
    }
}
