//! JSON as Go's `encoding/json` reads it, as far as our shapes go: upstream's files and annotations were written for it.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Decodes into a type whose members are named in lower case and have defaults.
pub fn from_go_json<T: DeserializeOwned>(text: &str) -> Result<T, serde_json::Error> {
    serde_json::from_value(fold(serde_json::from_str(text)?))
}

/// Member names in lower case, members that are `null` left out.
pub fn fold(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.to_ascii_lowercase(), fold(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(fold).collect(),
        other => other,
    }
}
