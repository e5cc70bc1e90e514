//! Lists in one environment variable: JSON, or words.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A route as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct RouteText {
    pub(super) dst: String,
    pub(super) gw: String,
}

/// A list of texts: `["a","b"]`, `a,b`, `a b` or `[a b]`.
pub(super) fn texts(text: &str) -> Vec<String> {
    if let Ok(list) = serde_json::from_str::<Option<Vec<String>>>(text) {
        return list.unwrap_or_default();
    }
    let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
    let words = inner.split(|c: char| c == ',' || c.is_whitespace());
    let words = words.map(|word| word.trim_matches(['"', '\'']));
    words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect()
}

/// A JSON list; an empty text is an empty one.
pub(super) fn json<T: DeserializeOwned>(text: &str) -> Result<Vec<T>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let list: Option<Vec<T>> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(list.unwrap_or_default())
}

/// A CIDR as its network; an address alone is a network of one.
pub(super) fn cidr(text: &str) -> Result<String, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map(|net| net.trunc().to_string()).map_err(|_| format!("{text:?} is neither an address nor a CIDR"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_several_spellings() {
        for text in [r#"["a","b"]"#, "a,b", " a b ", "[a b]", "[\"a\" \"b\"]", "a, b"] {
            assert_eq!(texts(text), ["a", "b"], "{text}");
        }
        assert!(texts("").is_empty() && texts("[]").is_empty() && texts("null").is_empty());
        assert_eq!(json::<RouteText>("null"), Ok(vec![]));
        assert_eq!(json::<RouteText>(r#"[{"dst":"a","gw":"b"}]"#).unwrap().len(), 1);
        assert!(json::<RouteText>("a").is_err());
    }

    #[test]
    fn addresses_become_networks() {
        assert_eq!(cidr("169.254.0.1/16"), Ok("169.254.0.0/16".into()));
        assert_eq!(cidr("1.2.3.4"), Ok("1.2.3.4/32".into()));
        assert_eq!(cidr("fd00::1"), Ok("fd00::1/128".into()));
        assert!(cidr("x").is_err());
    }
}
