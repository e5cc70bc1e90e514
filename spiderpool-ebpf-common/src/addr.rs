//! Addresses as the programs compare them: 16 bytes, IPv4 mapped into IPv6, one code path for both.

/// An address in network byte order, as four words in memory order (`::ffff:a.b.c.d` for IPv4).
///
/// Words, because the BPF target compares bytes one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Addr(pub [u32; 4]);

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Addr {
    /// `::`, which stands for "any address".
    pub const ANY: Self = Self([0; 4]);

    /// From the bytes of an IPv4 address.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// From the 16 bytes of an IPv6 (or IPv4-mapped) address.
    #[inline(always)]
    pub const fn v6(b: [u8; 16]) -> Self {
        Self([
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ])
    }

    /// The 16 bytes, as map keys hold them.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 16] {
        let [a, b, c, d] = self.0;
        let (a, b, c, d) = (a.to_ne_bytes(), b.to_ne_bytes(), c.to_ne_bytes(), d.to_ne_bytes());
        [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]]
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[2] == MAPPED
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && self.0[3] == 0 && (self.0[2] == 0 || self.0[2] == MAPPED)
    }

    /// Multicast, IPv4's limited broadcast, or IPv6 link-local: never routed, so never ours.
    ///
    /// IPv4 link-local is not in it: 169.254.0.0/16 is what node-local DNS listens on.
    #[inline(always)]
    pub const fn is_link_scope(self) -> bool {
        if self.is_v4() {
            let first = self.0[3].to_ne_bytes()[0];
            (first >= 224 && first < 240) || self.0[3] == u32::MAX
        } else {
            let [first, second, ..] = self.0[0].to_ne_bytes();
            first == 0xff || (first == 0xfe && second & 0xc0 == 0x80)
        }
    }
}

#[cfg(test)]
mod tests {
    use core::net::{IpAddr, Ipv6Addr};

    use super::Addr;

    fn addr(s: &str) -> Addr {
        match s.parse::<IpAddr>().unwrap() {
            IpAddr::V4(a) => Addr::v4(a.octets()),
            IpAddr::V6(a) => Addr::v6(a.octets()),
        }
    }

    #[test]
    fn ipv4_is_mapped() {
        let mapped: Ipv6Addr = "::ffff:10.6.212.145".parse().unwrap();
        assert_eq!(addr("10.6.212.145").bytes(), mapped.octets());
        assert_eq!(Addr::v6(mapped.octets()), addr("10.6.212.145"));
        assert!(addr("10.6.212.145").is_v4() && !addr("fd00::1").is_v4());
    }

    #[test]
    fn link_scope() {
        for s in ["224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1", "fe80::1", "febf::1"] {
            assert!(addr(s).is_link_scope(), "{s}");
        }
        for s in ["169.254.20.10", "10.0.0.255", "240.0.0.1", "fec0::1", "fd00::1", "::1", "127.0.0.1"] {
            assert!(!addr(s).is_link_scope(), "{s}");
        }
    }
}
