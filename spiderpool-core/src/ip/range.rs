//! One closed range of addresses, as written in `spec.ips` and `spec.excludeIPs`.

use std::fmt;
use std::net::{AddrParseError, IpAddr};
use std::str::FromStr;

use ipnet::IpNet;
use thiserror::Error;

use super::Family;

/// A closed range of addresses of one family, `first <= last`. Text: `A` or `A-B`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IpRangeError {
    /// CIDR notation is not part of the grammar.
    #[error("IP range {0:?} is a CIDR: write it as FIRST-LAST")]
    Cidr(String),
    /// One end does not parse.
    #[error("IP range {text:?} is invalid: {source}")]
    Address {
        /// The whole element.
        text: String,
        /// What the parser says.
        source: AddrParseError,
    },
    /// One IPv4 and one IPv6 end.
    #[error("IP range {0:?} mixes IPv4 and IPv6")]
    Mixed(String),
    /// The ends are the wrong way round.
    #[error("IP range {0:?} is reversed: the first address is above the last")]
    Reversed(String),
}

impl IpRange {
    /// The range from `first` to `last`, both included.
    pub fn new(first: IpAddr, last: IpAddr) -> Result<Self, IpRangeError> {
        let text = || format!("{first}-{last}");
        let family = Family::of(first);
        if family != Family::of(last) {
            return Err(IpRangeError::Mixed(text()));
        }
        if first > last {
            return Err(IpRangeError::Reversed(text()));
        }
        Ok(Self { family, first: Family::number(first), last: Family::number(last) })
    }

    /// The range that holds one address.
    pub fn single(addr: IpAddr) -> Self {
        let number = Family::number(addr);
        Self { family: Family::of(addr), first: number, last: number }
    }

    /// Every address of a network, network and broadcast address included.
    pub fn of_net(net: IpNet) -> Self {
        let (first, last) = (Family::number(net.network()), Family::number(net.broadcast()));
        Self { family: Family::of_net(&net), first, last }
    }

    /// Built from numbers; `first <= last` is the caller's promise, kept by [`super::IpSet`].
    pub(super) fn of_numbers(family: Family, first: u128, last: u128) -> Self {
        debug_assert!(first <= last && last <= family.max());
        Self { family, first, last }
    }

    /// The family of both ends.
    pub fn family(&self) -> Family {
        self.family
    }

    /// The lowest address.
    pub fn first(&self) -> IpAddr {
        self.family.addr(self.first)
    }

    /// The highest address.
    pub fn last(&self) -> IpAddr {
        self.family.addr(self.last)
    }

    pub(super) fn numbers(&self) -> (u128, u128) {
        (self.first, self.last)
    }

    /// Whether the range holds the address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        Family::of(addr) == self.family && (self.first..=self.last).contains(&Family::number(addr))
    }
}

impl FromStr for IpRange {
    type Err = IpRangeError;

    fn from_str(text: &str) -> Result<Self, IpRangeError> {
        if text.contains('/') {
            return Err(IpRangeError::Cidr(text.to_owned()));
        }
        let parse = |part: &str| {
            part.parse::<IpAddr>().map_err(|source| IpRangeError::Address { text: text.to_owned(), source })
        };
        match text.split_once('-') {
            None => Ok(Self::single(parse(text)?)),
            Some((first, last)) => Self::new(parse(first)?, parse(last)?),
        }
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first())?;
        if self.first == self.last { Ok(()) } else { write!(f, "-{}", self.last()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Result<&str, &str>) {
        let got = text.parse::<IpRange>().map(|r| r.to_string()).map_err(|e| e.to_string());
        match expect {
            Ok(canonical) => assert_eq!(got.as_deref(), Ok(canonical), "{text}"),
            Err(part) => assert!(got.as_ref().is_err_and(|e| e.contains(part)), "{text}: {got:?}"),
        }
    }

    #[test]
    fn grammar() {
        check("10.6.0.1", Ok("10.6.0.1"));
        check("10.6.0.1-10.6.0.1", Ok("10.6.0.1"));
        check("10.6.0.1-10.6.0.9", Ok("10.6.0.1-10.6.0.9"));
        check("FD00:0::1-fd00::f", Ok("fd00::1-fd00::f"));
        check("10.6.0.0/24", Err("CIDR"));
        check("10.6.0.9-10.6.0.1", Err("reversed"));
        check("10.6.0.9-fd00::1", Err("mixes"));
        check("10.6.0.1 - 10.6.0.9", Err("invalid"));
        check("10.6.0.1-10.6.0.2-10.6.0.3", Err("invalid"));
        check("", Err("invalid"));
        check("10.6.0.256", Err("invalid"));
    }
}
