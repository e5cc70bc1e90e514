//! GET `/v1/workloadendpoint`: what is recorded of a pod.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use spiderpool_api::crd::{EndpointIp, SpiderEndpointStatus};
use spiderpool_core::names::PodName;

use super::error::{ErrorResponse, Failed, INVALID, REQUIRED};
use crate::agent::Agent;

/// Both are needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Parameters {
    pod_namespace: String,
    pod_name: String,
}

pub(super) async fn of_pod(
    State(agent): State<Arc<Agent>>,
    Query(Parameters { pod_namespace, pod_name }): Query<Parameters>,
) -> Response {
    for (name, value) in [("podNamespace", &pod_namespace), ("podName", &pod_name)] {
        if value.is_empty() {
            let message = format!("{name} in query is required");
            return ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, REQUIRED, message).into_response();
        }
    }
    let pod = match PodName::new(pod_namespace, pod_name) {
        Ok(pod) => pod,
        Err(error) => {
            let message = format!("query is invalid: {error}");
            return ErrorResponse::new(StatusCode::UNPROCESSABLE_ENTITY, INVALID, message).into_response();
        }
    };
    let name = agent.ipam.endpoint_name(&pod);
    match agent.ipam.endpoints().get(&name).await.map(|found| found?.status) {
        Ok(Some(status)) => Json(document(&pod, &status)).into_response(),
        Ok(None) => {
            let text = format!("SpiderEndpoint not found for pod {pod}");
            Failed::with_status(StatusCode::NOT_FOUND, text).into_response()
        }
        Err(failure) => Failed::from(failure).into_response(),
    }
}

fn document(pod: &PodName, status: &SpiderEndpointStatus) -> Value {
    json!({
        "podNamespace": pod.namespace(),
        "podName": pod.name(),
        "podUID": status.current.uid,
        "node": status.current.node,
        "interfaces": status.current.ips.iter().map(interface).collect::<Vec<_>>(),
    })
}

fn interface(ip: &EndpointIp) -> Value {
    let mut value = json!({"interface": ip.interface, "routes": ip.routes});
    let texts = [
        ("ipv4", &ip.ipv4),
        ("ipv6", &ip.ipv6),
        ("mac", &ip.mac),
        ("ipv4Pool", &ip.ipv4_pool),
        ("ipv6Pool", &ip.ipv6_pool),
        ("ipv4Gateway", &ip.ipv4_gateway),
        ("ipv6Gateway", &ip.ipv6_gateway),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            value[name] = json!(text);
        }
    }
    if ip.vlan != 0 {
        value["vlan"] = json!(ip.vlan);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_recorded_is_left_out() {
        let ip = EndpointIp {
            interface: "eth0".into(),
            ipv4: Some("10.6.0.9/16".into()),
            ..EndpointIp::default()
        };
        assert_eq!(interface(&ip), json!({"interface": "eth0", "ipv4": "10.6.0.9/16", "routes": []}));
        assert_eq!(interface(&EndpointIp { vlan: 7, ..ip })["vlan"], json!(7));
    }
}
