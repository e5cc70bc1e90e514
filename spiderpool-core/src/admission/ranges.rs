//! The canonical form of lists of ranges, and of a subnet in a label; ranges in a message.

use ipnet::IpNet;

use crate::error_list::examples;
use crate::ip::{IpRange, IpSet};

/// The ranges sorted, joined and each address once, where that differs from what is written. `None` also where one does
/// not parse or is of another family: validation says so, of what the user wrote.
pub fn canonical(texts: &[String]) -> Option<Vec<String>> {
    if texts.len() < 2 {
        return None;
    }
    let ranges: Vec<IpRange> = texts.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    let family = ranges.first()?.family();
    if ranges.iter().any(|range| range.family() != family) {
        return None;
    }
    let canonical: Vec<_> =
        IpSet::from_ranges(family, ranges).ranges().map(|range| range.to_string()).collect();
    (canonical != texts).then_some(canonical)
}

/// The subnet as the value of a label, as upstream writes it: the first 3 dots, the first 7 colons and the slash become
/// dashes.
pub fn subnet_label(subnet: &IpNet) -> String {
    subnet.to_string().replacen('.', "-", 3).replacen(':', "-", 7).replacen('/', "-", 1)
}

/// The ranges of a set in a message.
pub fn listed(set: &IpSet) -> String {
    examples(set.ranges())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_and_joined() {
        let of = |texts: &[&str]| canonical(&texts.iter().map(ToString::to_string).collect::<Vec<_>>());
        let joined = of(&["10.6.0.9", "10.6.0.1-10.6.0.3", "10.6.0.4", "10.6.0.9"]).unwrap();
        assert_eq!(joined, ["10.6.0.1-10.6.0.4", "10.6.0.9"]);
        assert_eq!(of(&joined.iter().map(String::as_str).collect::<Vec<_>>()), None, "it is canonical");
        assert_eq!(of(&["10.6.0.9-10.6.0.9"]), None, "a single element stays as it is written");
        assert_eq!(of(&["10.6.0.9", "x"]), None);
        assert_eq!(of(&["10.6.0.9", "fd00::1"]), None);
    }

    #[test]
    fn subnets_become_labels_as_upstream_writes_them() {
        for (subnet, label) in [("10.6.0.0/16", "10-6-0-0-16"), ("fd00::/64", "fd00---64")] {
            assert_eq!(subnet_label(&subnet.parse().unwrap()), label);
        }
    }
}
