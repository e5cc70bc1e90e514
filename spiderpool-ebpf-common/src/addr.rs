//! Addresses as the programs compare them: 16 bytes, IPv4 mapped into IPv6, one code path for both.

/// An address in network byte order (`::ffff:a.b.c.d` for IPv4), aligned so that it is handled by words: the BPF
/// target would go byte by byte.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, Eq)]
pub struct Addr {
    /// The 16 bytes.
    pub bytes: [u8; 16],
}

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = 0xffff_u32.to_be();

impl PartialEq for Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words(), other.words());
        a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
    }
}

impl core::hash::Hash for Addr {
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        self.bytes.hash(state);
    }
}

impl Addr {
    /// `::`, which stands for "any address".
    pub const ANY: Self = Self { bytes: [0; 16] };

    /// From the bytes of an IPv4 address.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self::from_words([0, 0, MAPPED, u32::from_ne_bytes(bytes)])
    }

    /// From the 16 bytes of an IPv6 (or IPv4-mapped) address.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        Self { bytes }
    }

    /// From words in memory order.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        // SAFETY: both are 16 bytes aligned to 4, and any bits are valid for both.
        unsafe { core::mem::transmute(words) }
    }

    /// As words in memory order.
    #[inline(always)]
    pub const fn words(self) -> [u32; 4] {
        // SAFETY: both are 16 bytes aligned to 4, and any bits are valid for both.
        unsafe { core::mem::transmute(self) }
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        let words = self.words();
        words[0] == 0 && words[1] == 0 && words[2] == MAPPED
    }

    /// `0.0.0.0` or `::`.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        let words = self.words();
        words[0] == 0 && words[1] == 0 && words[3] == 0 && (words[2] == 0 || words[2] == MAPPED)
    }

    /// Multicast, IPv4's limited broadcast, or IPv6 link-local: never routed, so the programs leave it alone.
    ///
    /// IPv4 link-local is not in it: 169.254.0.0/16 is what node-local DNS listens on.
    #[inline(always)]
    pub const fn is_link_scope(self) -> bool {
        if self.is_v4() {
            let first = self.bytes[12];
            (first >= 224 && first < 240) || self.words()[3] == u32::MAX
        } else {
            self.bytes[0] == 0xff || (self.bytes[0] == 0xfe && self.bytes[1] & 0xc0 == 0x80)
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
        assert_eq!(addr("10.6.212.145").bytes, mapped.octets());
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
