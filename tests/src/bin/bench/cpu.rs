//! CPU time of a control plane.

use std::time::Duration;

use anyhow::Result;
use spiderpool_tests::control_plane::ControlPlane;
use spiderpool_tests::cpu_time;

/// CPU time of kube-apiserver and etcd together, since they were started.
pub(crate) fn of_control_plane(plane: &ControlPlane) -> Result<Duration> {
    Ok(of_api_server(plane)? + cpu_time::of_process(plane.etcd_id()?)?)
}

/// CPU time of kube-apiserver alone, since it was started.
pub(crate) fn of_api_server(plane: &ControlPlane) -> Result<Duration> {
    cpu_time::of_process(plane.api_server_id()?)
}
