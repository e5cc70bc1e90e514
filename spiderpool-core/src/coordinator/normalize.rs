//! Settings in the form in which they are stored.

use super::Settings;
use super::values::parse_net;

impl Settings {
    /// The settings with all CIDRs as networks: a single address has its full prefix length, and a network no host bits.
    /// What does not parse stays as it is.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let normalize = |text: &mut String| {
            if let Some(net) = parse_net(text) {
                *text = net.to_string();
            }
        };
        self.hijack_cidr.iter_mut().flatten().for_each(normalize);
        self.policy_routes.iter_mut().flatten().map(|route| &mut route.dst).for_each(normalize);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::PolicyRouteText;

    #[test]
    fn single_addresses_become_networks() {
        let settings = Settings {
            hijack_cidr: Some(vec!["10.1.2.3".into(), "fd00::1".into(), "10.1.2.3/8".into(), "x".into()]),
            policy_routes: Some(vec![PolicyRouteText { dst: "10.9.9.9".into(), gw: "10.0.0.1".into() }]),
            ..Settings::default()
        };
        let normalized = settings.normalized();
        assert_eq!(normalized.hijack_cidr.unwrap(), ["10.1.2.3/32", "fd00::1/128", "10.0.0.0/8", "x"]);
        assert_eq!(normalized.policy_routes.unwrap()[0].dst, "10.9.9.9/32");
    }
}
