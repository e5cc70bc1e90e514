//! SpiderMultusConfigs: the name of the NetworkAttachmentDefinition. What is wrong with an object alone is said by
//! `multus::validate`.

use crate::field_error::FieldError;
use crate::multus::MultusFields;
use crate::multus::annotations::CR_NAME;

/// Who has the name of a NetworkAttachmentDefinition already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameHolder {
    /// The SpiderMultusConfig of this name, whose NetworkAttachmentDefinition has the same.
    Config(String),
    /// A NetworkAttachmentDefinition that no SpiderMultusConfig of this name has made.
    Foreign,
}

/// Why a network cannot have its name in `namespace`.
pub fn name_taken_fault(fields: &MultusFields<'_>, namespace: &str, holder: &NameHolder) -> FieldError {
    let name = fields.attachment_name();
    let is_annotated = fields.annotations.is_some_and(|annotations| annotations.contains_key(CR_NAME));
    let path =
        if is_annotated { format!("metadata.annotations[{CR_NAME}]") } else { "metadata.name".to_owned() };
    let conflict = match holder {
        NameHolder::Config(other) => format!(
            "SpiderMultusConfig {namespace}/{other} makes the NetworkAttachmentDefinition {namespace}/{name}"
        ),
        NameHolder::Foreign => format!(
            "the NetworkAttachmentDefinition {namespace}/{name} exists, and was not made of this SpiderMultusConfig"
        ),
    };
    FieldError::invalid(path, name, format!("{conflict}: choose another name, or delete that object first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_with_the_name_and_the_object_that_has_it_are_named() {
        let fields = MultusFields { name: "a", ..MultusFields::default() };
        let fault = name_taken_fault(&fields, "ns", &NameHolder::Config("b".to_owned()));
        assert_eq!(
            fault.to_string(),
            "metadata.name: Invalid value: \"a\": SpiderMultusConfig ns/b makes the NetworkAttachmentDefinition ns/a: choose \
             another name, or delete that object first"
        );
        let annotations = [(CR_NAME.to_owned(), "net".to_owned())].into();
        let fields = MultusFields { annotations: Some(&annotations), ..fields };
        let fault = name_taken_fault(&fields, "ns", &NameHolder::Foreign).to_string();
        let start = "metadata.annotations[multus.spidernet.io/cr-name]: Invalid value: \"net\": the \
                     NetworkAttachmentDefinition ns/net exists";
        assert!(fault.starts_with(start), "{fault}");
    }
}
