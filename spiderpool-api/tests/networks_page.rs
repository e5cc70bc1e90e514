//! The page about networks shows what is made of its examples.
#![cfg(feature = "crd")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use spiderpool_api::crd::SpiderMultusConfig;
use spiderpool_core::multus::{MultusFields, plan_attachment};

const PAGE: &str = include_str!("../../docs/networks.md");

/// The blocks of a language, with what follows each.
fn blocks(language: &str) -> Vec<(&'static str, &'static str)> {
    let parts = PAGE.split(&format!("```{language}\n")).skip(1).collect::<Vec<_>>();
    parts.into_iter().map(|part| part.split_once("\n```\n").unwrap()).collect()
}

#[test]
fn each_example_is_followed_by_what_is_made_of_it() {
    let examples = blocks("yaml");
    let mut types = BTreeSet::new();
    for (yaml, after) in &examples {
        let object: SpiderMultusConfig = serde_norway::from_str(yaml).unwrap();
        let attachment = plan_attachment(&MultusFields::from(&object)).unwrap();
        let shown = after.split("```json\n").nth(1).unwrap().split("\n```").next().unwrap();
        let shown: String = shown.lines().map(str::trim).collect();
        assert_eq!(shown, attachment.config.unwrap(), "{yaml}");
        types.insert(object.spec.cni_type.to_string());
    }
    assert_eq!((types.len(), blocks("json").len()), (8, examples.len()), "{types:?}");
}
