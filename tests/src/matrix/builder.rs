//! A flow in the making, for one protocol after the other.

use std::net::IpAddr;

use crate::flow::{Expected, Flow};
use crate::namespaces::Namespaces;
use crate::probe::{PORT, Probe, Protocol};

/// See [`flow`].
pub(super) struct FlowBuilder(Flow);

/// Starts a flow of `pod` to where servers listen.
pub(super) fn flow(name: &str, pod: &Namespaces, from: &Namespaces, to: IpAddr) -> FlowBuilder {
    FlowBuilder(Flow {
        name: name.to_owned(),
        from: from.clone(),
        probe: Probe { protocol: Protocol::Tcp, to, bound: None },
        port: PORT,
        servers: Vec::new(),
        pod: pod.clone(),
        client_nic: None,
        server_nic: None,
    })
}

impl FlowBuilder {
    /// From a socket that is bound to `address`.
    pub(super) fn bound(mut self, address: IpAddr) -> Self {
        self.0.probe.bound = Some(address);
        self
    }

    /// To another port than the servers'.
    pub(super) fn port(mut self, port: u16) -> Self {
        self.0.port = port;
        self
    }

    /// `server` must answer, and see one of `sources`.
    pub(super) fn seen_by(mut self, server: &Namespaces, sources: &[IpAddr]) -> Self {
        self.0.servers.push(Expected { server: server.name.clone(), sources: sources.to_vec() });
        self
    }

    /// The pod must send by `nic`, and be answered there; `None`: requests and answers may have different ways.
    pub(super) fn leaves_by(mut self, nic: impl Into<Option<&'static str>>) -> Self {
        self.0.client_nic = nic.into();
        self
    }

    /// The pod must be asked by `nic` for its address `own`, and answer there.
    pub(super) fn comes_by(mut self, nic: &'static str, own: IpAddr) -> Self {
        self.0.server_nic = Some((nic, own));
        self
    }

    /// The flow by each of `protocols`.
    pub(super) fn by(self, protocols: &[Protocol]) -> Vec<Flow> {
        protocols
            .iter()
            .map(|protocol| {
                let mut flow = self.0.clone();
                flow.probe.protocol = *protocol;
                if *protocol == Protocol::Ping {
                    flow.servers.clear();
                }
                flow
            })
            .collect()
    }
}
