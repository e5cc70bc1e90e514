//! The CRDs as short tables, so that a change to a name, a default or a rule is seen in review.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinitionVersion, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

use super::*;

/// Names, scope, columns and fields of a CRD, a line each.
fn table(crd: &CustomResourceDefinition) -> String {
    let (spec, names) = (&crd.spec, &crd.spec.names);
    let [version] = &spec.versions[..] else { panic!("one version") };
    let list = |names: &Option<Vec<String>>| names.clone().unwrap_or_default().join(",");
    let mut text = format!(
        "{} {}/{} plural={} short={} category={} scope={} status-subresource={}\n",
        names.kind,
        spec.group,
        version.name,
        names.plural,
        list(&names.short_names),
        list(&names.categories),
        spec.scope,
        version.subresources.as_ref().is_some_and(|s| s.status.is_some()),
    );
    assert!(version.served && version.storage);
    columns(&mut text, version);
    let schema = version.schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
    fields(&mut text, schema, "");
    text
}

fn columns(text: &mut String, version: &CustomResourceDefinitionVersion) {
    for column in version.additional_printer_columns.iter().flatten() {
        let priority = column.priority.map(|p| format!(" priority={p}")).unwrap_or_default();
        writeln!(text, "column {} {} {}{priority}", column.name, column.type_, column.json_path).unwrap();
    }
}

fn fields(text: &mut String, schema: &JSONSchemaProps, path: &str) {
    let required = schema.required.clone().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        write!(text, "{path} {}", field.type_.as_deref().unwrap_or("?")).unwrap();
        for (word, value) in rules(field) {
            write!(text, " {word}={value}").unwrap();
        }
        text.push_str(if required.contains(name) { " required\n" } else { "\n" });
        fields(text, field, &path);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        if items.properties.is_some() {
            fields(text, items, &format!("{path}[]"));
        } else {
            write!(text, "{path}[] {}", items.type_.as_deref().unwrap_or("?")).unwrap();
            for (word, value) in rules(items) {
                write!(text, " {word}={value}").unwrap();
            }
            text.push('\n');
        }
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        writeln!(text, "{path}{{}} {}", values.type_.as_deref().unwrap_or("?")).unwrap();
    }
}

fn rules(field: &JSONSchemaProps) -> Vec<(&'static str, String)> {
    let mut rules = Vec::new();
    let mut rule = |word, value: Option<String>| rules.extend(value.map(|value| (word, value)));
    rule("format", field.format.clone());
    rule("default", field.default.as_ref().map(|d| serde_json::to_string(d).unwrap()));
    rule("pattern", field.pattern.clone());
    rule("enum", field.enum_.as_ref().map(|e| serde_json::to_string(e).unwrap()));
    rule("min", field.minimum.map(|n| n.to_string()));
    rule("max", field.maximum.map(|n| n.to_string()));
    rule("map-type", field.x_kubernetes_map_type.clone());
    rule("list-type", field.x_kubernetes_list_type.clone());
    assert!(field.nullable.is_none() && field.any_of.is_none() && field.one_of.is_none(), "{field:?}");
    rules
}

#[test]
fn definitions_are_upstreams_and_our_additions() {
    for crd in crds().unwrap() {
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(crd.spec.names.plural.clone(), table(&crd));
        });
    }
}

#[test]
fn nothing_is_described_in_rust() {
    for crd in crds().unwrap() {
        let text = serde_json::to_string(&crd).unwrap();
        assert!(!text.contains("[`"), "a link in the description of {}", crd.spec.names.kind);
        assert!(!text.contains("\"uint"), "an unsigned format in {}", crd.spec.names.kind);
    }
}
