//! JSON as Go's `encoding/json` reads it, as far as our shapes go: upstream's files and annotations were written for it.

use std::collections::BTreeMap;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer, Visitor};
use serde::{Deserializer, forward_to_deserialize_any};
use serde_json::{Error, Value};

/// Decodes into a type: its members are found by their names in any case, and those that are `null` count as absent.
///
/// Not for types with `#[serde(flatten)]`, whose members serde does not name.
pub fn from_go_json<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    from_go_value(serde_json::from_str(text)?)
}

/// The same for JSON that is decoded already.
pub fn from_go_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(GoValue(value))
}

/// The same for what must be understood as far as it can be: members that do not decode count as absent.
pub fn from_readable_members<T: DeserializeOwned + Default>(value: Value) -> T {
    let Value::Object(members) = value else { return T::default() };
    let is_readable = |name: &String, value: &Value| {
        from_go_value::<T>(Value::Object([(name.clone(), value.clone())].into_iter().collect())).is_ok()
    };
    let readable = members.into_iter().filter(|(name, value)| is_readable(name, value)).collect();
    from_go_value(Value::Object(readable)).unwrap_or_default()
}

struct GoValue(Value);

impl IntoDeserializer<'_, Error> for GoValue {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for GoValue {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(GoValue))),
            Value::Object(members) => {
                let present = members.into_iter().filter(|(_, value)| !value.is_null());
                visitor.visit_map(MapDeserializer::new(present.map(|(name, value)| (name, GoValue(value)))))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let Value::Object(members) = self.0 else { return self.deserialize_any(visitor) };
        // Of several spellings of one member, one counts.
        let found: BTreeMap<String, Value> = members
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| {
                let field = fields.iter().find(|field| field.eq_ignore_ascii_case(&name));
                (field.map_or(name, |field| (*field).to_owned()), value)
            })
            .collect();
        visitor.visit_map(MapDeserializer::new(found.into_iter().map(|(name, value)| (name, GoValue(value)))))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Outer {
        pod_cidr: Vec<Inner>,
        mtu: Option<i64>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Inner {
        #[serde(rename = "DST")]
        dst: String,
    }

    #[track_caller]
    fn check(json: &str, cidrs: &[&str], mtu: Option<i64>) {
        let pod_cidr = cidrs.iter().map(|dst| Inner { dst: (*dst).to_owned() }).collect();
        assert_eq!(from_go_json::<Outer>(json).unwrap(), Outer { pod_cidr, mtu }, "{json}");
    }

    #[test]
    fn names_are_found_in_any_case_and_null_is_absent() {
        check(
            r#"{"podCidr": [{"DST": "a"}, {"dst": "b"}, {"Dst": null}], "MTU": 3}"#,
            &["a", "b", ""],
            Some(3),
        );
        check(r#"{"PODCIDR": null, "mtu": null, "more": {"a": 1}}"#, &[], None);
        check(r#"{"mtu": 1, "Mtu": 1}"#, &[], Some(1));
        check("{}", &[], None);
    }

    #[test]
    fn unreadable_members_cost_no_readable_ones() {
        let read = |json: &str| from_readable_members::<Outer>(serde_json::from_str(json).unwrap());
        let mtu = Outer { mtu: Some(3), ..Outer::default() };
        assert_eq!(read(r#"{"podCIDR": "a", "MTU": 3}"#), mtu);
        assert_eq!(read(r#"{"podCIDR": [7], "MTU": 3, "Mtu": "x"}"#), mtu);
        for nothing in ["[]", "null", "7", r#"{"mtu": "x"}"#] {
            assert_eq!(read(nothing), Outer::default(), "{nothing}");
        }
    }

    #[test]
    fn wrong_types_are_named() {
        let error = |json: &str| from_go_json::<Outer>(json).unwrap_err().to_string();
        assert!(error(r#"{"podCIDR": "a"}"#).contains("invalid type: string \"a\", expected a sequence"));
        assert!(error(r#"{"mtu": "1"}"#).contains("invalid type: string"));
    }
}
