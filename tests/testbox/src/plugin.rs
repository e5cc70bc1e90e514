//! The stand-ins for the CNI plugins of Calico and Cilium, as executables that a container runtime calls. Which one
//! it is the file's name tells. Addresses come from the IPAM plugin that the configuration names.

mod environment;
mod ipam;
mod kind;

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{calico, cilium, command, sysctl};
use environment::variable;
use ipam::Leased;
pub use ipam::POD_CIDRS;
pub use kind::Kind;

/// Where a node remembers whose routes may be on which host end: one file each, with the addresses.
pub const ENDPOINTS: &str = "/run/calico-like";

/// Does what `CNI_COMMAND` says; whether it went well. Prints the result or the error object.
pub fn run(kind: Kind) -> bool {
    let mut config = Value::Null;
    match answer(kind, &mut config) {
        Ok(answer) => {
            if let Some(answer) = answer {
                println!("{answer}");
            }
            true
        }
        Err(error) => {
            println!(
                "{}",
                json!({"cniVersion": config["cniVersion"], "code": 100, "msg": format!("{error:#}")})
            );
            false
        }
    }
}

fn answer(kind: Kind, config: &mut Value) -> Result<Option<Value>> {
    let command = variable("CNI_COMMAND")?;
    if command == "VERSION" {
        let versions = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
        return Ok(Some(json!({"cniVersion": "1.1.0", "supportedVersions": versions})));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input")?;
    *config = serde_json::from_str(&text).context("the configuration is not JSON")?;
    match command.as_str() {
        "ADD" => {
            let nic = Nic::from_environment(kind)?;
            let leased = ipam::execute(kind, config, "ADD")?;
            nic.add(config, &leased).map(Some).inspect_err(|_| {
                // The ADD's error is the one to report.
                drop(nic.remove());
                drop(ipam::execute(kind, config, "DEL"));
            })
        }
        "DEL" => {
            // Whatever is left of the NIC, its addresses are free.
            let removed = Nic::from_environment(kind)?.remove();
            ipam::execute(kind, config, "DEL")?;
            removed.map(|()| None)
        }
        _ => Ok(None), // CHECK, STATUS and GC find nothing to complain of
    }
}

/// The NIC to be made or removed.
struct Nic {
    kind: Kind,
    name: String,
    netns: PathBuf,
    host_end: String,
}

impl Nic {
    fn from_environment(kind: Kind) -> Result<Self> {
        let (container, name) = (variable("CNI_CONTAINERID")?, variable("CNI_IFNAME")?);
        let mut hasher = DefaultHasher::new();
        (&container, &name).hash(&mut hasher);
        let prefix = match kind {
            Kind::Calico => calico::PREFIX,
            Kind::Cilium => cilium::PREFIX,
        };
        let host_end = format!("{prefix}{:011x}", hasher.finish() >> 20);
        // DEL may come without it, when the namespace is gone already.
        let netns = env::var_os("CNI_NETNS").map(PathBuf::from).unwrap_or_default();
        Ok(Self { kind, name, netns, host_end })
    }

    fn add(&self, config: &Value, leased: &Leased) -> Result<Value> {
        let addresses = leased.addresses()?;
        let (host_end, nic) = (&self.host_end, &self.name);
        let mtu = calico::MTU;
        let mac = match self.kind {
            Kind::Calico => calico::HOST_MAC.to_owned(),
            Kind::Cilium => mac(host_end),
        };
        self.remember(&addresses)?;
        ip(&format!(
            "link add {host_end} address {mac} type veth peer name {nic} mtu {mtu} netns {}
            link set {host_end} mtu {mtu} up",
            self.netns.display()
        ))?;
        match self.kind {
            Kind::Calico => {
                sysctl::write(&calico::host_sysctls(host_end))?;
                self.ip_in_pod(&calico::pod_script(nic, &addresses))?;
                ip(&calico::host_routes(host_end, &addresses))?;
            }
            Kind::Cilium => {
                sysctl::write(&cilium::host_sysctls(host_end))?;
                let script = cilium::pod_script(nic, &addresses, &leased.gateways());
                self.ip_in_pod(&script.context("the IPAM plugin names no gateways")?)?;
                ip(&cilium::host_routes(host_end, &addresses, &leased.gateways()))?;
            }
        }
        let pod_mac = self.pod_mac()?;
        // Version is what results before 1.0 have.
        let shown = |address: &IpAddr| {
            let (version, length) = if address.is_ipv4() { ("4", 32) } else { ("6", 128) };
            json!({"version": version, "address": format!("{address}/{length}"), "interface": 1})
        };
        Ok(json!({
            "cniVersion": config["cniVersion"],
            "interfaces": [
                {"name": host_end, "mac": mac},
                {"name": nic, "mac": pod_mac, "sandbox": self.netns},
            ],
            "ips": addresses.iter().map(shown).collect::<Vec<_>>(),
            "routes": self.routes(&addresses, leased),
            "dns": {},
        }))
    }

    /// The default routes, whatever the IPAM plugin would have.
    fn routes(&self, addresses: &[IpAddr], leased: &Leased) -> Vec<Value> {
        let hop = |v4: bool| match self.kind {
            Kind::Calico if v4 => Some(calico::HOST_V4.to_owned()),
            Kind::Calico => Some(calico::HOST_LINK_LOCAL.to_owned()),
            Kind::Cilium => {
                leased.gateways().into_iter().find(|it| it.is_ipv4() == v4).map(|it| it.to_string())
            }
        };
        let route = |address: &IpAddr| {
            let destination = if address.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
            json!({"dst": destination, "gw": hop(address.is_ipv4())})
        };
        addresses.iter().map(route).collect()
    }

    fn pod_mac(&self) -> Result<Value> {
        let mut show = self.in_pod("ip");
        let links = command::output(show.args(["-j", "link", "show", "dev", &self.name]), "")?;
        let links: Value = serde_json::from_str(&links)?;
        Ok(links[0]["address"].clone())
    }

    /// Before the routes are there: whoever watches them asks at once.
    fn remember(&self, addresses: &[IpAddr]) -> Result<()> {
        let text = addresses.iter().map(|address| format!("{address}\n")).collect::<Vec<_>>().concat();
        fs::create_dir_all(ENDPOINTS)?;
        fs::write(self.record(), text)?;
        if self.kind == Kind::Cilium {
            self.change_rules(cilium::add_endpoint, addresses)?;
        }
        Ok(())
    }

    fn record(&self) -> PathBuf {
        Path::new(ENDPOINTS).join(&self.host_end)
    }

    fn change_rules(&self, change: fn(&str, IpAddr) -> String, addresses: &[IpAddr]) -> Result<()> {
        let rules: String = addresses.iter().map(|address| change(&self.host_end, *address)).collect();
        command::output(Command::new("nft").args(["-f", "-"]), &rules)?;
        Ok(())
    }

    /// Removes what is there of it, all that can be removed.
    fn remove(&self) -> Result<()> {
        let link = self.remove_link();
        self.forget().and(link)
    }

    fn remove_link(&self) -> Result<()> {
        let link = Path::new("/sys/class/net").join(&self.host_end);
        if !link.exists() {
            return Ok(());
        }
        match ip(&format!("link del {}", self.host_end)) {
            // It goes with the pod's namespace too, at any time.
            Err(_) if !link.exists() => Ok(()),
            outcome => outcome,
        }
    }

    fn forget(&self) -> Result<()> {
        let Ok(addresses) = fs::read_to_string(self.record()) else { return Ok(()) };
        let addresses: Vec<IpAddr> = addresses.lines().filter_map(|line| line.parse().ok()).collect();
        let rules = match self.kind {
            Kind::Calico => Ok(()),
            Kind::Cilium => self.change_rules(cilium::remove_endpoint, &addresses),
        };
        fs::remove_file(self.record())?;
        rules
    }

    fn in_pod(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.netns.display())).arg(program);
        command
    }

    fn ip_in_pod(&self, script: &str) -> Result<()> {
        command::output(self.in_pod("ip").args(["-batch", "-"]), script)
            .with_context(|| format!("in the pod:\n{script}"))
            .map(drop)
    }
}

fn ip(script: &str) -> Result<()> {
    command::output(Command::new("ip").args(["-batch", "-"]), script)
        .with_context(|| script.to_owned())
        .map(drop)
}

/// The same for the same name, so that nothing depends on chance.
fn mac(name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    let bytes = hasher.finish().to_be_bytes();
    bytes[..5].iter().fold("02".to_owned(), |mac, byte| format!("{mac}:{byte:02x}"))
}
