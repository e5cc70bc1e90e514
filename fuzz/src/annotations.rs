//! Annotations of pods, by which people ask for addresses.

use std::collections::BTreeMap;

use spiderpool_core::ipam::PodAnnotations;
use spiderpool_core::subnet::parse_request;

pub(crate) fn check(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let annotations: BTreeMap<String, String> =
        pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    // What is refused is named.
    if let Err(error) = PodAnnotations::parse(&annotations) {
        assert!(!error.to_string().is_empty());
    }
    if let Err(error) = parse_request(&annotations) {
        assert!(error.to_string().contains("ipam.spidernet.io/"), "{error}");
    }
}
