//! Writing into objects of any form: what is no object stays as it is.

use serde_json::{Map, Value, json};

/// The members of a part of the object, which is made if it is absent.
pub(super) fn members_mut<'a>(object: &'a mut Value, path: &[&str]) -> Option<&'a mut Map<String, Value>> {
    let mut part = object;
    for name in path {
        part = part.as_object_mut()?.entry(*name).or_insert_with(|| json!({}));
        if part.is_null() {
            *part = json!({});
        }
    }
    part.as_object_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_made_where_they_are_absent_and_nothing_else_changes() {
        let mut object = json!({"metadata": {"labels": null}, "spec": []});
        assert!(members_mut(&mut object, &["metadata", "labels"]).unwrap().is_empty());
        assert_eq!(members_mut(&mut object, &["spec"]), None);
        assert_eq!(members_mut(&mut object, &["spec", "a"]), None);
        assert_eq!(object, json!({"metadata": {"labels": {}}, "spec": []}));
    }
}
