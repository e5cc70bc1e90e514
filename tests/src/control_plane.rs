//! etcd and kube-apiserver as a test needs them: started in seconds, killed and restarted at will, gone with the test.

pub(crate) mod access;
mod certificates;
pub(crate) mod etcd;
mod objects;
mod options;
pub(crate) mod server;
mod snapshot;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::namespaces::Namespaces;
use crate::process::Process;
use crate::state_dir::StateDir;
use crate::tools;
pub(crate) use certificates::{Authority, Identity};
pub use objects::Kind;
pub use options::{Crds, Durability, Options};
pub use snapshot::Snapshot;

const API_SERVER: &str = "kube-apiserver";
/// How long etcd and the API server may take to become ready.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long they may take to stop.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running control plane. Dropping it kills both processes and removes their state.
#[derive(Debug)]
pub struct ControlPlane {
    options: Options,
    namespaces: Option<Namespaces>,
    address: String,
    ports: Ports,
    authority: Authority,
    admin: PathBuf,
    api_server: Option<Process>,
    etcd: Option<Process>,
    state: Arc<StateDir>,
}

#[derive(Debug, Clone, Copy)]
struct Ports {
    api: u16,
    etcd_client: u16,
    etcd_peer: u16,
}

impl ControlPlane {
    /// Starts etcd and kube-apiserver on a loopback address of their own and waits until they serve.
    ///
    /// The address is 127.64.0.0/10 plus the process id, so that runs at the same time never meet.
    pub fn start(options: Options) -> Result<Self> {
        static INSTANCES: AtomicU16 = AtomicU16::new(0);
        let id = process::id();
        let address = format!("127.{}.{}.{}", 64 + (id >> 16 & 0x3f), id >> 8 & 0xff, id & 0xff);
        let base = 6440 + INSTANCES.fetch_add(1, Ordering::Relaxed) * 10;
        let ports = Ports { api: base + 3, etcd_client: base, etcd_peer: base + 1 };
        Self::start_at(options, None, address, ports, Arc::new(StateDir::create()?))
    }

    /// Starts it in a machine, which has `address`, with the usual ports.
    pub fn start_in(
        options: Options,
        namespaces: &Namespaces,
        address: IpAddr,
        state: Arc<StateDir>,
    ) -> Result<Self> {
        let ports = Ports { api: 6443, etcd_client: 2379, etcd_peer: 2380 };
        Self::start_at(options, Some(namespaces.clone()), address.to_string(), ports, state)
    }

    fn start_at(
        options: Options,
        namespaces: Option<Namespaces>,
        address: String,
        ports: Ports,
        state: Arc<StateDir>,
    ) -> Result<Self> {
        let authority = Authority::create(&state.path().join("pki"))?;
        let url = format!("https://{address}:{}", ports.api);
        let admin = authority.kubeconfig(&url, "admin", Some("system:masters"))?;
        let mut plane = Self {
            options,
            namespaces,
            address,
            ports,
            authority,
            admin,
            api_server: None,
            etcd: None,
            state,
        };
        plane.start_etcd()?;
        plane.start_api_server()?;
        plane.set_up()?;
        Ok(plane)
    }

    /// The one instance of this test binary. Tests keep apart by names of their own.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<ControlPlane>> = OnceLock::new();
        match SHARED.get_or_init(|| Self::start(Options::default())) {
            Ok(plane) => plane,
            Err(error) => panic!("control plane: {error:#}"),
        }
    }

    /// `https://ADDRESS:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.api)
    }

    /// The kubeconfig file of a cluster administrator.
    pub fn admin(&self) -> &Path {
        &self.admin
    }

    /// A command in the control plane's namespaces.
    fn command(&self, program: &Path) -> Command {
        self.namespaces
            .as_ref()
            .map_or_else(|| Command::new(program), |namespaces| namespaces.command(program))
    }

    fn start_program(&self, name: &str, arguments: Vec<String>) -> Result<Process> {
        let mut command = self.command(&tools::kubernetes(name)?);
        command.args(arguments);
        Process::start(name, &command, &self.state.log(name)).with_context(|| name.to_owned())
    }

    /// Starts etcd on the data it had, if any.
    pub fn start_etcd(&mut self) -> Result<()> {
        let ports = [self.ports.etcd_client, self.ports.etcd_peer];
        let arguments = etcd::arguments(&self.address, ports, &self.etcd_data(), self.options.durability);
        self.etcd = Some(self.start_program("etcd", arguments)?);
        Ok(())
    }

    fn etcd_data(&self) -> PathBuf {
        self.state.path().join("etcd")
    }

    /// Starts kube-apiserver and waits until it is ready.
    pub fn start_api_server(&mut self) -> Result<()> {
        let names = [self.address.clone(), "localhost".into(), "kubernetes.default.svc".into()];
        let serving = self.authority.sign(API_SERVER, None, &names)?;
        let etcd = format!("http://{}:{}", self.address, self.ports.etcd_client);
        let mut arguments = server::arguments(&self.authority, &serving, &etcd, &self.options.service_cidrs);
        arguments.extend(server::standalone(&self.address, self.ports.api));
        self.api_server = Some(self.start_program(API_SERVER, arguments)?);
        self.wait_ready()
    }

    /// Asks kube-apiserver to end and waits for it.
    pub fn stop_api_server(&mut self) -> Result<()> {
        self.api_server.take().context("kube-apiserver is not running")?.terminate(STOP_LIMIT)?;
        Ok(())
    }

    /// Kills kube-apiserver where it stands.
    pub fn kill_api_server(&mut self) -> Result<()> {
        self.api_server.take().context("kube-apiserver is not running")?.kill()
    }

    /// The process id of kube-apiserver.
    pub fn api_server_id(&self) -> Result<u32> {
        Ok(self.api_server.as_ref().context("kube-apiserver is not running")?.id())
    }

    /// The process id of etcd.
    pub fn etcd_id(&self) -> Result<u32> {
        Ok(self.etcd.as_ref().context("etcd is not running")?.id())
    }

    /// Kills etcd where it stands.
    pub fn kill_etcd(&mut self) -> Result<()> {
        self.etcd.take().context("etcd is not running")?.kill()
    }
}
