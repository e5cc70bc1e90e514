//! GET `/v1/workloadendpoint`: what is recorded of a pod.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use spiderpool_api::crd::{EndpointIp, SpiderEndpointStatus};

use super::error::{Failed, Problem};
use crate::daemon::Agent;

/// A required parameter is missing.
const REQUIRED: u16 = 602;

pub(super) async fn of_pod(
    State(agent): State<Arc<Agent>>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Json<Value>, Response> {
    let parameter = |name: &str| {
        let missing = || {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, REQUIRED, format!("{name} in query is required"))
        };
        query.get(name).filter(|value| !value.is_empty()).cloned().ok_or_else(|| missing().into_response())
    };
    let (namespace, name) = (parameter("podNamespace")?, parameter("podName")?);
    let found = agent.ipam.endpoints().get(&namespace, &name).await;
    let found = found.map_err(|failure| Failed::from(failure).into_response())?;
    let status = found.and_then(|endpoint| endpoint.status).ok_or_else(|| {
        let text = format!("SpiderEndpoint not found for pod {namespace}/{name}");
        Failed::with_status(StatusCode::NOT_FOUND, text).into_response()
    })?;
    Ok(Json(document(&namespace, &name, &status)))
}

fn document(namespace: &str, name: &str, status: &SpiderEndpointStatus) -> Value {
    json!({
        "podNamespace": namespace,
        "podName": name,
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
