//! Pods that the agent's dataplane knows and that have no NICs: registered by the agent's socket, as the coordinator does it. The agent
//! does not find their NICs in the namespace that they name, and leaves it alone.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use http::Method;
use serde::Serialize;
use spiderpool_api::agent::dataplane::{
    Attachment, DefaultRoutes, Nic, NicRole, NodeLinkCallers, RegisterNics, RegisteredNics, RouteHints,
};
use spiderpool_api::agent::path;
use spiderpool_core::dataplane::OwnCidrs;
use spiderpool_core::names::PodName;

use crate::exchange::ask_socket;
use crate::namespaces::Namespaces;

const SOCKET: &str = "/var/run/spidernet/spiderpool.sock";

/// Runs a task where the agent's socket is.
pub fn in_node<T: Send>(node: &Namespaces, task: impl AsyncFnOnce() -> Result<T> + Send) -> Result<T> {
    node.run(|| tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task()))
}

/// Registers a pod; the id of its cluster NIC.
pub async fn register(name: &str) -> Result<u16> {
    let answer = ask(Method::PUT, &request(name)?).await?;
    let registered: RegisteredNics = serde_json::from_slice(&answer)?;
    Ok(registered.nics.first().context("no NIC has an id")?.id)
}

/// Removes a pod.
pub async fn unregister(name: &str) -> Result<()> {
    ask(Method::DELETE, &attachment(name)?).await.map(drop)
}

async fn ask(method: Method, body: &impl Serialize) -> Result<Vec<u8>> {
    let asked = ask_socket(Path::new(SOCKET), method, path::DATAPLANE_NICS, serde_json::to_vec(body)?);
    let (status, answer) = asked.await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&answer));
    Ok(answer.to_vec())
}

fn attachment(name: &str) -> Result<Attachment> {
    Ok(Attachment { container_id: name.parse()?, network: "macvlan".into(), if_name: "net1".parse()? })
}

fn request(name: &str) -> Result<RegisterNics> {
    let nic = |name: &str, role, address: &str| {
        anyhow::Ok(Nic {
            name: name.parse()?,
            role,
            ifindex: 1_000_000,
            mac: "02:00:00:00:00:01".parse()?,
            peer_mac: None,
            mtu: 1500,
            addresses: vec![address.parse()?],
            default_routes: DefaultRoutes::default(),
        })
    };
    Ok(RegisterNics {
        attachment: attachment(name)?,
        pod: PodName::new("default", name)?,
        pod_uid: None,
        // Any that exists.
        netns: "/proc/self/ns/net".into(),
        open_netns: None,
        nics: vec![
            nic("eth0", NicRole::Cluster, "10.244.200.9/32")?,
            nic("sp0", NicRole::NodeLink, "169.254.77.2/32")?,
            nic("net1", NicRole::Underlay, "10.66.200.9/16")?,
        ],
        stay: vec![],
        gateways: BTreeSet::new(),
        own_cidrs: OwnCidrs::default(),
        route_hints: RouteHints::Auto,
        node_link: NodeLinkCallers::All,
    })
}
