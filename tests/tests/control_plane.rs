//! The bench's own control plane: it serves, survives its processes' death and leaves nothing behind.
#![forbid(unsafe_code)]

use std::fs;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use spiderpool_tests::control_plane::{ControlPlane, Crds, Options};

#[test]
fn survives_kill_of_both_processes_and_leaves_nothing() {
    let mut plane = ControlPlane::start(Options { crds: Crds::None, ..Options::default() }).unwrap();
    let state = plane.admin().parent().unwrap().parent().unwrap().to_owned();
    plane
        .with_client(async |client| {
            let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "kept"}}))?;
            Ok(Api::<Namespace>::all(client).create(&PostParams::default(), &namespace).await?)
        })
        .unwrap();

    plane.kill_api_server().unwrap();
    plane.kill_etcd().unwrap();
    plane.start_etcd().unwrap();
    plane.start_api_server().unwrap();

    let names = plane.kubectl(&["get", "namespace", "kept", "-o", "name"]).unwrap();
    assert_eq!(names.trim(), "namespace/kept");

    drop(plane);
    assert!(!state.exists(), "{} is left: {:?}", state.display(), fs::read_dir(&state).map(Iterator::count));
}
