//! What is created, repaired, kept, and left alone.

use kube::core::DynamicObject;

use super::*;

fn config(annotations: &Value) -> SpiderMultusConfig {
    let meta = json!({ "namespace": "ns", "name": "net", "uid": "u1", "annotations": annotations });
    serde_json::from_value(json!({ "metadata": meta, "spec": {} })).unwrap()
}

fn desired(annotations: &[(&str, &str)], config: Option<&str>) -> Attachment {
    let annotations =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Attachment { name: "net".into(), annotations, config: config.map(ToOwned::to_owned) }
}

/// As the API server has it after our creation and `change`.
fn found(desired: &Attachment, change: impl FnOnce(&mut Value)) -> FoundAttachment {
    let mut object = object(&config(&json!({})), desired);
    object["metadata"]["uid"] = json!("n1");
    object["metadata"]["resourceVersion"] = json!("7");
    change(&mut object);
    serde_json::from_value::<DynamicObject>(object).unwrap().into()
}

#[track_caller]
fn check_patch(desired: &Attachment, found: &FoundAttachment, expect: &Value) {
    let Step::Patch(mut patch) = plan(&config(&json!({})), desired, Some(found)).unwrap() else {
        panic!("{found:?}")
    };
    let meta = patch["metadata"].as_object_mut().unwrap();
    assert_eq!((meta.remove("uid"), meta.remove("resourceVersion")), (Some(json!("n1")), Some(json!("7"))));
    assert_eq!(patch, *expect);
}

#[test]
fn what_is_created_is_owned_and_marked() {
    let Step::Create(object) =
        plan(&config(&json!({})), &desired(&[("a/b", "c")], Some("{}")), None).unwrap()
    else {
        panic!("it is not there")
    };
    let owner = json!({
        "apiVersion": "spiderpool.spidernet.io/v2beta1", "kind": "SpiderMultusConfig", "name": "net", "uid": "u1",
        "controller": true, "blockOwnerDeletion": true,
    });
    let expect = json!({
        "apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
        "metadata": {
            "namespace": "ns", "name": "net", "labels": { OWNER_LABEL: "u1" },
            "annotations": { "a/b": "c", COPIED: "a/b", MADE_AS: "net" }, "ownerReferences": [owner],
        },
        "spec": { "config": "{}" },
    });
    assert_eq!(object, expect);
}

/// A backup has the labels and annotations of then; owners and UIDs are others.
#[test]
fn what_a_backup_brings_back_is_adopted() {
    let desired = desired(&[], Some("{}"));
    let restored = |made_as: &str| {
        found(&desired, |object| {
            object["metadata"]["labels"][OWNER_LABEL] = json!("of then");
            object["metadata"]["annotations"][MADE_AS] = json!(made_as);
            object["metadata"]["ownerReferences"] = json!([]);
        })
    };
    let step = plan(&config(&json!({})), &desired, Some(&restored("net"))).unwrap();
    let Step::Patch(patch) = step else { panic!("{step:?}") };
    assert_eq!(patch["metadata"]["labels"], json!({ OWNER_LABEL: "u1" }));
    assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "u1");
    assert!(
        !belongs_to(&restored("net"), &config(&json!({}))),
        "not to be deleted as a former name of another"
    );
    plan(&config(&json!({})), &desired, Some(&restored("other"))).unwrap_err();
}

#[test]
fn what_is_as_it_should_be_is_not_written() {
    for desired in [desired(&[("a", "b")], Some("{}")), desired(&[], None)] {
        let found = found(&desired, |_| {});
        assert_eq!(plan(&config(&json!({})), &desired, Some(&found)), Ok(Step::Nothing));
    }
}

/// Upstream wipes them at each change.
#[test]
fn annotations_of_others_stay() {
    let wanted = desired(&[("a", "b")], Some("{}"));
    let foreign = found(&wanted, |object| object["metadata"]["annotations"]["foreign"] = json!("x"));
    assert_eq!(plan(&config(&json!({})), &wanted, Some(&foreign)), Ok(Step::Nothing));
    let changed = desired(&[("a", "c")], Some("{}"));
    check_patch(&changed, &foreign, &json!({ "metadata": { "annotations": { "a": "c" } } }));
}

#[test]
fn copies_go_with_what_they_are_copies_of() {
    let before = found(&desired(&[("a", "b"), ("c", "d")], Some("{}")), |_| {});
    let after = json!({ "metadata": { "annotations": { "a": null, COPIED: "c" } } });
    check_patch(&desired(&[("c", "d")], Some("{}")), &before, &after);
    let none = json!({ "metadata": { "annotations": { "a": null, "c": null, COPIED: null } } });
    check_patch(&desired(&[], Some("{}")), &before, &none);
}

#[test]
fn drift_is_repaired_and_no_more_than_it() {
    let wanted = desired(&[], Some("{}"));
    let edited = found(&wanted, |object| object["spec"]["config"] = json!("{ }"));
    check_patch(&wanted, &edited, &json!({ "metadata": {}, "spec": { "config": "{}" } }));
    let empty = found(&wanted, |object| object["spec"] = json!({}));
    check_patch(&wanted, &empty, &json!({ "metadata": {}, "spec": { "config": "{}" } }));
    check_patch(&desired(&[], None), &edited, &json!({ "metadata": {}, "spec": { "config": null } }));
    let unnamed = found(&wanted, |object| object["metadata"]["annotations"] = json!({}));
    check_patch(&wanted, &unnamed, &json!({ "metadata": { "annotations": { MADE_AS: "net" } } }));
    let unlabelled = found(&wanted, |object| object["metadata"]["labels"] = json!({}));
    check_patch(&wanted, &unlabelled, &json!({ "metadata": { "labels": { OWNER_LABEL: "u1" } } }));
    let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c1" });
    let disowned = found(&wanted, |object| object["metadata"]["ownerReferences"] = json!([other]));
    let owner = json!(owner_reference(&config(&json!({}))));
    let owners = json!([other, owner]);
    check_patch(&wanted, &disowned, &json!({ "metadata": { "ownerReferences": owners } }));
}

#[test]
fn what_others_have_made_is_left_alone() {
    let wanted = desired(&[], Some("{}"));
    let error = |change: &dyn Fn(&mut Value)| {
        let found = found(&wanted, change);
        plan(&config(&json!({})), &wanted, Some(&found)).unwrap_err().to_string()
    };
    let nobodys = error(&|object| {
        object["metadata"]["labels"] = json!({});
        object["metadata"]["ownerReferences"] = json!([]);
    });
    assert!(
        nobodys.contains("net-attach-def ns/net already exists and is managed by no SpiderMultus"),
        "{nobodys}"
    );
    let anothers = error(&|object| {
        object["metadata"]["ownerReferences"][0]["name"] = json!("other");
        object["metadata"]["ownerReferences"][0]["uid"] = json!("u2");
    });
    assert!(
        anothers.starts_with(
            "the net-attach-def ns/net already exists and is managed by SpiderMultusConfig ns/other."
        ),
        "{anothers}"
    );
    let operators = error(&|object| {
        object["metadata"]["ownerReferences"][0]["kind"] = json!("SriovNetwork");
    });
    assert!(operators.contains("managed by SriovNetwork net"), "{operators}");
}

#[test]
fn what_is_being_deleted_or_a_predecessors_is_waited_for() {
    let wanted = desired(&[], Some("{}"));
    let deleting = found(&wanted, |object| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object["spec"] = json!({});
    });
    let predecessors = found(&wanted, |object| object["metadata"]["ownerReferences"][0]["uid"] = json!("u0"));
    for found in [deleting, predecessors] {
        assert_eq!(plan(&config(&json!({})), &wanted, Some(&found)), Ok(Step::AwaitDeletion));
    }
}
