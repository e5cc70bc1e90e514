//! The ports that the kernel gives to sockets that ask for none.

/// First and last port of `net.ipv4.ip_local_port_range`, which holds for IPv6 too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first one.
    pub first: u16,
    /// The last one, part of the range.
    pub last: u16,
}

impl PortRange {
    /// What a new network namespace has (net/ipv4/af_inet.c, `inet_init_net`).
    pub const DEFAULT: Self = Self { first: 32_768, last: 60_999 };

    /// The value of the kernel parameter: two numbers.
    pub fn parse(text: &str) -> Option<Self> {
        let mut ports = text.split_whitespace().map(str::parse);
        let (Some(Ok(first)), Some(Ok(last)), None) = (ports.next(), ports.next(), ports.next()) else {
            return None;
        };
        Some(Self { first, last })
    }
}

impl Default for PortRange {
    fn default() -> Self {
        Self::DEFAULT
    }
}

#[cfg(test)]
mod tests {
    use super::PortRange;

    #[test]
    fn values_of_the_kernel_parameter() {
        assert_eq!(PortRange::parse("32768\t60999"), Some(PortRange::DEFAULT));
        assert_eq!(PortRange::parse("1024 65535"), Some(PortRange { first: 1024, last: 65_535 }));
        for wrong in ["", "1024", "1 2 3", "a b", "1 70000"] {
            assert_eq!(PortRange::parse(wrong), None, "{wrong}");
        }
    }
}
