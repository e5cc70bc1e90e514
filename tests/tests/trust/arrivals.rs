//! What arrives at a place, whatever becomes of it there.

use serde_json::Value;
use spiderpool_tests::namespaces::Namespaces;

/// Counts packets before everything else but tc's filters sees them.
pub(crate) struct Arrivals {
    at: Namespaces,
}

impl Arrivals {
    /// Those that match one of `rules`, in the words of nftables. One of these at a place.
    pub(crate) fn count(at: &Namespaces, rules: &[&str]) -> Self {
        let rules: Vec<String> = rules.iter().map(|rule| format!("{rule} counter name arrived")).collect();
        at.nft(&format!(
            "table inet arrivals {{
                counter arrived {{}}
                chain prerouting {{
                    type filter hook prerouting priority -500;
                    {}
                }}
            }}",
            rules.join("\n")
        ))
        .unwrap();
        Self { at: at.clone() }
    }

    /// How many there were so far.
    pub(crate) fn packets(&self) -> u64 {
        counted(&self.at, "arrivals", "arrived")
    }

    pub(crate) fn end(self) {
        self.at.nft("delete table inet arrivals").unwrap();
    }
}

/// What a counter of nftables has counted.
pub(crate) fn counted(at: &Namespaces, table: &str, name: &str) -> u64 {
    let counter = at.output("nft", &["-j", "list", "counter", "inet", table, name]).unwrap();
    let counter: Value = serde_json::from_str(&counter).unwrap();
    let of = |object: &Value| object["counter"]["packets"].as_u64();
    counter["nftables"].as_array().unwrap().iter().find_map(of).unwrap()
}
