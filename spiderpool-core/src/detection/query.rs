//! What the link is asked, and what counts as an answer.

use std::net::{IpAddr, Ipv4Addr};

use super::arp::{self, Arp, Operation};
use super::ndp::{self, Message};
use crate::ip::Family;
use crate::mac::MacAddr;

/// What the link is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Query {
    /// Who uses an address that nobody is to use yet.
    Owner(IpAddr),
    /// Whether a gateway is there.
    Gateway {
        /// The gateway.
        gateway: IpAddr,
        /// Who asks: an address of the same family, which is known to be free.
        own: IpAddr,
    },
}

/// What follows an Ethernet header, and whom it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// ARP, or IPv6.
    pub family: Family,
    /// The Ethernet destination.
    pub to: MacAddr,
    /// ARP, or IPv6 with its header.
    pub bytes: Vec<u8>,
}

/// Something that came in, without its Ethernet header.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// ARP, or IPv6.
    pub family: Family,
    /// The Ethernet source.
    pub from: MacAddr,
    /// For whom it was.
    pub cast: Cast,
    /// ARP, or IPv6 with its header.
    pub bytes: &'a [u8],
}

/// For whom a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// For us alone.
    Unicast,
    /// For everybody, or for a group.
    Many,
}

impl Query {
    /// The address that is asked for.
    pub fn target(&self) -> IpAddr {
        match *self {
            Self::Owner(address) => address,
            Self::Gateway { gateway, .. } => gateway,
        }
    }

    /// The question, in the name of this MAC.
    pub fn packet(&self, mac: MacAddr) -> Packet {
        let target = self.target();
        let own = match self {
            Self::Owner(_) => None,
            Self::Gateway { own, .. } => Some(*own),
        };
        match target {
            IpAddr::V4(target) => {
                let sender = if let Some(IpAddr::V4(own)) = own { own } else { Ipv4Addr::UNSPECIFIED };
                Packet {
                    family: Family::V4,
                    to: MacAddr([0xff; 6]),
                    bytes: arp::request(mac, sender, target),
                }
            }
            IpAddr::V6(target) => {
                let source = if let Some(IpAddr::V6(own)) = own { Some(own) } else { None };
                Packet {
                    family: Family::V6,
                    to: ndp::group_mac(ndp::solicited_node(target)),
                    bytes: ndp::solicitation(mac, source, target),
                }
            }
        }
    }

    /// The MAC that answers, if `heard` is an answer to us, who have the MAC `own`. What comes from our own MAC is our own
    /// question: a bond and a switch with a loop return it.
    pub fn answer(&self, own: MacAddr, heard: &Heard<'_>) -> Option<MacAddr> {
        let claimant = match (heard.family, self.target()) {
            (Family::V4, IpAddr::V4(target)) => {
                let arp = arp::parse(heard.bytes)?;
                let claims = arp.sender == target || self.rivals(heard.cast, || is_probe_for(&arp, target));
                claims.then_some(arp.sender_mac)
            }
            (Family::V6, IpAddr::V6(target)) => match ndp::parse(heard.bytes)? {
                Message::Advertisement { target: claimed, mac } if claimed == target => {
                    Some(mac.unwrap_or(heard.from))
                }
                Message::Solicitation { source: None, target: wanted }
                    if self.rivals(heard.cast, || wanted == target) =>
                {
                    Some(heard.from)
                }
                // Who asks by an address has it.
                Message::Solicitation { source: Some(source), .. } if source == target => Some(heard.from),
                _ => None,
            },
            _ => None,
        };
        claimant.filter(|claimant| *claimant != own && heard.from != own)
    }

    /// Whether it is the question of another one who is about to use the address (RFC 5227 section 2.1.1, RFC 4862 section
    /// 5.4.3). They ask everybody; switches that follow who is where ask a known host alone in the same form.
    fn rivals(&self, cast: Cast, is_same: impl FnOnce() -> bool) -> bool {
        matches!(self, Self::Owner(_)) && cast == Cast::Many && is_same()
    }
}

fn is_probe_for(arp: &Arp, target: Ipv4Addr) -> bool {
    arp.operation == Operation::Request && arp.sender.is_unspecified() && arp.target == target
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 7]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn arp(operation: u8, mac: MacAddr, sender: &str, target: &str) -> Vec<u8> {
        let mut bytes = arp::request(mac, sender.parse().unwrap(), target.parse().unwrap());
        bytes[7] = operation;
        bytes
    }

    fn hear(query: Query, from: MacAddr, cast: Cast, bytes: &[u8]) -> Option<MacAddr> {
        let family = Family::of(query.target());
        query.answer(OWN, &Heard { family, from, cast, bytes })
    }

    #[test]
    fn who_calls_an_address_its_own_has_it() {
        let owner = Query::Owner(ip("10.6.0.9"));
        for (operation, target) in [(2, "0.0.0.0"), (1, "10.6.0.1"), (1, "10.6.0.9"), (2, "10.6.0.9")] {
            let bytes = arp(operation, OTHER, "10.6.0.9", target);
            assert_eq!(hear(owner, OTHER, Cast::Many, &bytes), Some(OTHER), "{operation} {target}");
        }
        // Somebody else asks for it, or has another one.
        for bytes in [arp(1, OTHER, "10.6.0.5", "10.6.0.9"), arp(2, OTHER, "10.6.0.8", "10.6.0.9")] {
            assert_eq!(hear(owner, OTHER, Cast::Many, &bytes), None);
        }
    }

    /// Upstream ignores them, and two who begin at the same time both get the address.
    #[test]
    fn who_probes_at_the_same_time_is_a_rival_if_everybody_is_asked() {
        let owner = Query::Owner(ip("10.6.0.9"));
        let probe = arp(1, OTHER, "0.0.0.0", "10.6.0.9");
        assert_eq!(hear(owner, OTHER, Cast::Many, &probe), Some(OTHER));
        assert_eq!(hear(owner, OTHER, Cast::Unicast, &probe), None, "a switch's device tracking");
        let gateway = Query::Gateway { gateway: ip("10.6.0.9"), own: ip("10.6.0.5") };
        assert_eq!(hear(gateway, OTHER, Cast::Many, &probe), None);
        let owner = Query::Owner(ip("fd66::9"));
        let probe = owner.packet(OTHER).bytes;
        assert_eq!(hear(owner, OTHER, Cast::Many, &probe), Some(OTHER));
        assert_eq!(hear(Query::Owner(ip("fd66::8")), OTHER, Cast::Many, &probe), None);
    }

    #[test]
    fn what_comes_back_of_our_own_is_no_answer() {
        for query in [Query::Owner(ip("10.6.0.9")), Query::Owner(ip("fd66::9"))] {
            assert_eq!(hear(query, OWN, Cast::Many, &query.packet(OWN).bytes), None);
        }
        let announced = ndp::unsolicited_advertisement(OWN, "fd66::9".parse().unwrap());
        assert_eq!(hear(Query::Owner(ip("fd66::9")), OWN, Cast::Many, &announced), None);
    }

    #[test]
    fn an_advertisement_answers_for_its_target_alone() {
        let bytes = ndp::unsolicited_advertisement(OTHER, "fd66::9".parse().unwrap());
        assert_eq!(hear(Query::Owner(ip("fd66::9")), OTHER, Cast::Many, &bytes), Some(OTHER));
        assert_eq!(hear(Query::Owner(ip("fd66::8")), OTHER, Cast::Many, &bytes), None);
        let gateway = Query::Gateway { gateway: ip("fd66::9"), own: ip("fd66::5") };
        assert_eq!(hear(gateway, OTHER, Cast::Unicast, &bytes), Some(OTHER));
    }

    #[test]
    fn a_gateway_is_asked_by_the_new_address_and_an_owner_by_none() {
        let sender = |query: Query| arp::parse(&query.packet(OWN).bytes).unwrap().sender.to_string();
        assert_eq!(sender(Query::Owner(ip("10.6.0.9"))), "0.0.0.0");
        let gateway = Query::Gateway { gateway: ip("10.6.0.1"), own: ip("10.6.0.9") };
        assert_eq!(sender(gateway), "10.6.0.9");
        let source = |query: Query| match ndp::parse(&query.packet(OWN).bytes) {
            Some(Message::Solicitation { source, .. }) => source.map(IpAddr::from),
            other => panic!("{other:?}"),
        };
        assert_eq!(source(Query::Owner(ip("fd66::9"))), None);
        let gateway = Query::Gateway { gateway: ip("fd66::1"), own: ip("fd66::9") };
        assert_eq!(source(gateway), Some(ip("fd66::9")));
    }
}
