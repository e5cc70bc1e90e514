//! Plugin configurations that users write as JSON text.

use serde_json::Value;

/// One plugin of `chainCNIJsonData`: an object that names its type (CNI specification 1.1.0, section 1).
pub(super) fn parse_plugin(text: &str) -> Result<Value, String> {
    let value = parse_object(text)?;
    if has_type(&value) { Ok(value) } else { Err("\"type\" is missing: the plugin's name".to_owned()) }
}

/// A whole configuration of `customCNI`: one plugin, or a list of them.
pub(super) fn parse_config(text: &str) -> Result<Value, String> {
    let value = parse_object(text)?;
    let plugins = match &value["plugins"] {
        Value::Null if has_type(&value) => return Ok(value),
        Value::Array(plugins) => &plugins[..],
        _ => &[],
    };
    if plugins.is_empty() || !plugins.iter().all(has_type) {
        return Err("neither \"type\" nor \"plugins\", a list of objects with a \"type\" each".to_owned());
    }
    Ok(value)
}

fn parse_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("is no JSON object".to_owned()),
        Err(error) => Err(format!("is no JSON: {error}")),
    }
}

fn has_type(plugin: &Value) -> bool {
    plugin["type"].as_str().is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_an_object_with_a_type() {
        assert!(parse_plugin(r#"{"type": "tuning", "sysctl": {}}"#).is_ok());
        for (text, part) in [
            ("", "no JSON: EOF"),
            ("[]", "no JSON object"),
            ("{}", "\"type\""),
            (r#"{"type": ""}"#, "\"type\""),
        ] {
            let error = parse_plugin(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_configuration_is_a_plugin_or_a_list_of_them() {
        for text in [r#"{"type": "macvlan"}"#, r#"{"plugins": [{"type": "a"}, {"type": "b"}]}"#] {
            assert!(parse_config(text).is_ok(), "{text}");
        }
        for text in
            ["{}", r#"{"plugins": []}"#, r#"{"plugins": [{"type": "a"}, {}]}"#, r#"{"plugins": 7}"#, "7"]
        {
            assert!(parse_config(text).is_err(), "{text}");
        }
    }
}
