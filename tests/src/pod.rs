//! Pods as a kubelet makes them: the API object, a network namespace, the CNI networks in order, and back.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1 as core;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use crate::cni::{self, Attachment, Network};
use crate::control_plane::ControlPlane;
use crate::default_network;
use crate::dual::Dual;
use crate::namespaces::Namespaces;
use crate::probe::PORT;
use crate::topology::Node;

/// Ping sockets are allowed, as runtimes do.
const SYSCTLS: &[&str] = &["ipv4/ping_group_range=0 0"];

/// What a pod is made from.
#[derive(Debug, Clone, Default)]
pub struct PodSpec {
    /// Its name, in the namespace `default`.
    pub name: String,
    /// Annotations of the API object.
    pub annotations: Vec<(String, String)>,
    /// Networks beside the default one, for net1, net2, ...
    pub networks: Vec<Network>,
    /// The network of eth0 in place of the default one.
    pub first: Option<Network>,
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// UID of the API object.
    pub uid: String,
    /// Its network namespace.
    pub namespaces: Namespaces,
    /// eth0's addresses.
    pub eth0: Dual,
    /// Further NICs: what was attached, and the CNI result.
    pub attachments: Vec<(Network, Attachment, Value)>,
    sandbox: Attachment,
    /// eth0's network and result, if it is not the default network.
    pub first: Option<(Network, Value)>,
    /// The configuration by which a port of the node leads to eth0.
    port_mapping: Option<Value>,
}

impl Pod {
    /// Creates the API object and the sandbox, and runs ADD of every network. A failed ADD removes the sandbox again.
    pub fn add(plane: &ControlPlane, node: &Node, spec: &PodSpec) -> Result<Self> {
        let uid = create_object(plane, node, spec)?;
        let mut pod = Self::sandbox(node, &spec.name, &uid, spec.first.as_ref())?;
        for (index, network) in spec.networks.iter().enumerate() {
            if let Err(error) = pod.attach(node, &format!("net{}", index + 1), network) {
                // The ADD's error is the one to report.
                drop(pod.del_sandbox(node));
                return Err(error);
            }
        }
        Ok(pod)
    }

    /// A sandbox with eth0, for a pod object that exists already.
    pub fn add_sandbox(node: &Node, name: &str, uid: &str) -> Result<Self> {
        Self::sandbox(node, name, uid, None)
    }

    fn sandbox(node: &Node, name: &str, uid: &str, first: Option<&Network>) -> Result<Self> {
        let container = format!("{uid}-{}", fs::read_to_string("/proc/sys/kernel/random/uuid")?.trim());
        let netns = create_netns(node, name)?;
        let namespaces = node.with_network(name, &netns);
        namespaces.sysctl(SYSCTLS)?;
        namespaces.ip("link set lo up")?;
        let arguments = [
            "IgnoreUnknown=1".to_owned(),
            "K8S_POD_NAMESPACE=default".to_owned(),
            format!("K8S_POD_NAME={name}"),
            format!("K8S_POD_INFRA_CONTAINER_ID={container}"),
            format!("K8S_POD_UID={uid}"),
        ];
        let sandbox =
            Attachment { container, netns, interface: "eth0".into(), arguments: arguments.join(";") };
        let (eth0, first) = match first {
            None => (default_network::add(node, &namespaces, &sandbox)?.0, None),
            Some(network) => {
                let result = network.add(node, &sandbox).with_context(|| format!("{name}: ADD of eth0"))?;
                (addresses_of(&result)?, Some((network.clone(), result)))
            }
        };
        Ok(Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            namespaces,
            eth0,
            attachments: Vec::new(),
            sandbox,
            first,
            port_mapping: None,
        })
    }

    /// The attachment of one NIC of this sandbox.
    pub fn attachment(&self, interface: &str) -> Attachment {
        Attachment { interface: interface.to_owned(), ..self.sandbox.clone() }
    }

    /// Runs ADD of one more network.
    pub fn attach(&mut self, node: &Node, interface: &str, network: &Network) -> Result<()> {
        let attachment = self.attachment(interface);
        match network.add(node, &attachment) {
            Ok(result) => self.attachments.push((network.clone(), attachment, result)),
            Err(error) => {
                // As a runtime does after a failed ADD.
                network.del(node, &attachment, &Value::Null)?;
                return Err(error.context(format!("{}: ADD of {interface}", self.name)));
            }
        }
        Ok(())
    }

    /// Makes `port` of the node lead to the servers' port of eth0, by the reference plugin as a runtime calls it for a
    /// container's `hostPort`.
    pub fn map_port(&mut self, node: &Node, port: u16) -> Result<()> {
        let mappings = ["tcp", "udp"]
            .map(|protocol| json!({"hostPort": port, "containerPort": PORT, "protocol": protocol}));
        let config = json!({
            "cniVersion": "1.0.0", "name": "default", "type": "portmap", "capabilities": {"portMappings": true},
            "runtimeConfig": {"portMappings": mappings},
            "prevResult": {
                "cniVersion": "1.0.0",
                "interfaces": [{"name": "eth0", "sandbox": self.sandbox.netns}],
                "ips": [
                    {"address": format!("{}/32", self.eth0.v4), "interface": 0},
                    {"address": format!("{}/128", self.eth0.v6), "interface": 0},
                ],
            },
        });
        cni::execute(node, "ADD", &self.sandbox, &serde_json::to_vec(&config)?)?;
        self.port_mapping = Some(config);
        Ok(())
    }

    /// The addresses of net1, from the CNI result.
    pub fn net1(&self) -> Result<Dual> {
        self.underlay(1)
    }

    /// The same of net1, net2... by number.
    pub fn underlay(&self, number: usize) -> Result<Dual> {
        let (_, _, result) =
            self.attachments.get(number - 1).with_context(|| format!("{} has no net{number}", self.name))?;
        addresses_of(result)
    }

    /// Deletes the pod: graceful deletion of the object, DEL of the networks in reverse, then the object itself.
    pub fn del(self, plane: &ControlPlane, node: &Node) -> Result<()> {
        let name = self.name.clone();
        delete_object(plane, &name, &DeleteParams::default().grace_period(30))?;
        self.del_sandbox(node)?;
        delete_object(plane, &name, &DeleteParams::default().grace_period(0))
    }

    /// Removes the sandbox; the object stays.
    pub fn del_sandbox(self, node: &Node) -> Result<()> {
        for (network, attachment, result) in self.attachments.iter().rev() {
            network.del(node, attachment, result).with_context(|| self.name.clone())?;
        }
        if let Some(config) = &self.port_mapping {
            cni::execute(node, "DEL", &self.sandbox, &serde_json::to_vec(config)?)?;
        }
        match &self.first {
            None => default_network::del(node, &self.sandbox, self.eth0)?,
            Some((network, result)) => network.del(node, &self.sandbox, result)?,
        }
        let netns = &self.sandbox.netns;
        node.run(|| {
            umount2(netns, MntFlags::MNT_DETACH).with_context(|| netns.display().to_string())?;
            Ok(fs::remove_file(netns)?)
        })
    }
}

fn addresses_of(result: &Value) -> Result<Dual> {
    let addresses: Vec<IpAddr> = result["ips"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    Dual::from_addresses(&addresses).with_context(|| format!("not two addresses in {result}"))
}

/// A network namespace that nothing but its file in `/run/netns` holds.
fn create_netns(node: &Namespaces, name: &str) -> Result<PathBuf> {
    let path = Path::new("/run/netns").join(name);
    node.run(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        File::create_new(&path).with_context(|| path.display().to_string())?;
        // The thread's own entry: the process's is that of its first thread.
        mount(Some("/proc/thread-self/ns/net"), &path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .with_context(|| path.display().to_string())?;
        Ok(())
    })?;
    Ok(path)
}

fn create_object(plane: &ControlPlane, node: &Node, spec: &PodSpec) -> Result<String> {
    let annotations: serde_json::Map<String, Value> =
        spec.annotations.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let object: core::Pod = serde_json::from_value(json!({
        "metadata": {"name": spec.name, "annotations": annotations},
        "spec": {
            "nodeName": node.name, "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "none.invalid/none"}],
        },
    }))?;
    plane.with_client(async |client| {
        let pods: Api<core::Pod> = Api::default_namespaced(client);
        let created = pods.create(&PostParams::default(), &object).await?;
        let running = json!({"status": {"phase": "Running"}});
        pods.patch_status(&spec.name, &PatchParams::default(), &Patch::Merge(running)).await?;
        created.metadata.uid.context("a pod without UID")
    })
}

fn delete_object(plane: &ControlPlane, name: &str, how: &DeleteParams) -> Result<()> {
    plane.with_client(async |client| {
        Api::<core::Pod>::default_namespaced(client).delete(name, how).await?;
        Ok(())
    })
}
