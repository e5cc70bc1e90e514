//! Running helm, and reading what it prints.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use serde::Deserialize as _;
use serde_json::Value;
use spiderpool_tests::kubectl::NO_GARBAGE;
use spiderpool_tests::{process, tools};

/// Where the releases of these tests go.
pub(crate) const NAMESPACE: &str = "spiderpool";

/// helm with the chart's folder behind the verb.
pub(crate) fn helm(verb: &[&str], more: &[&str]) -> Result<String> {
    let chart = tools::chart()?.display().to_string();
    plain_helm(&[verb, &[&chart], more].concat())
}

/// helm with these arguments.
pub(crate) fn plain_helm(arguments: &[&str]) -> Result<String> {
    let home = tempfile::tempdir()?;
    let mut helm = Command::new(tools::kubernetes("helm")?);
    helm.args(arguments);
    // Not the settings of the one who runs the tests.
    helm.env("HELM_CACHE_HOME", home.path())
        .env("HELM_CONFIG_HOME", home.path())
        .env("HELM_DATA_HOME", home.path())
        .env(NO_GARBAGE.0, NO_GARBAGE.1);
    process::output(&helm)
}

/// The rendered text, hooks included, without the definitions.
pub(crate) fn template(arguments: &[&str]) -> Result<String> {
    helm(&["template", "spiderpool", "--namespace", NAMESPACE], arguments)
}

/// As [`template`], which is asked once for all tests that want the same.
fn remembered(arguments: &[&str]) -> Arc<str> {
    static KNOWN: Mutex<BTreeMap<String, Arc<str>>> = Mutex::new(BTreeMap::new());
    let known = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let key = arguments.join("\n");
    if let Some(text) = known().get(&key) {
        return Arc::clone(text);
    }
    let text: Arc<str> = template(arguments).unwrap().into();
    known().insert(key, Arc::clone(&text));
    text
}

/// All objects that values render to.
pub(crate) fn objects(arguments: &[&str]) -> Vec<Value> {
    parse(&remembered(arguments))
}

/// Objects of a YAML stream.
pub(crate) fn parse(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    documents.map(|document| Value::deserialize(document).unwrap()).filter(|value| !value.is_null()).collect()
}

/// The one of this kind and name.
pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} {name}"));
    assert!(found.next().is_none(), "two of {kind} {name}");
    object
}

/// `KIND NAME`.
pub(crate) fn title(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// The pod that an object starts, if it starts one; also of the manifest within the clean Job's ConfigMap.
pub(crate) fn pods(objects: &[Value]) -> Vec<(String, Value)> {
    let inner = objects.iter().filter_map(|o| o["data"]["clean-node.yaml"].as_str()).flat_map(parse);
    let all = objects.iter().cloned().chain(inner);
    all.filter_map(|o| {
        let pod = if o["kind"] == "Pod" { &o["spec"] } else { &o["spec"]["template"]["spec"] };
        let pod = pod.clone();
        pod.is_object().then(|| (title(&o), pod))
    })
    .collect()
}

/// Containers of a pod, init containers first.
pub(crate) fn containers(pod: &Value) -> Vec<&Value> {
    let list = |key: &str| pod[key].as_array().into_iter().flatten();
    list("initContainers").chain(list("containers")).collect()
}
