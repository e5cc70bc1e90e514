//! Programs of the distribution: installed by apt-get as root, otherwise the
//! commands to type are the error.

use std::{fmt, path::Path};

use anyhow::{Result, bail};

use super::lookup;
use crate::process;

/// A program and the package it comes in, on Debian and on Ubuntu.
struct Program {
    name: &'static str,
    debian: &'static str,
    ubuntu: &'static str,
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, debian: package, ubuntu: package }
}

const PROGRAMS: &[Program] = &[
    program("cc", "gcc libc6-dev"),
    program("ip", "iproute2"),
    program("nft", "nftables"),
    program("iptables", "iptables"),
    program("conntrack", "conntrack"),
    program("tcpdump", "tcpdump"),
    program("ethtool", "ethtool"),
    program("sysctl", "procps"),
    program("nsenter", "util-linux"),
    Program { name: "bpftool", debian: "bpftool", ubuntu: "linux-tools-common linux-tools-generic" },
];

/// What a node of a cluster runs beside Kubernetes.
const CONTAINER_PROGRAMS: &[Program] =
    &[program("containerd", "containerd"), program("ctr", "containerd"), program("runc", "runc")];

/// What stands around a cluster: its pods' image, the router of the underlay, the BGP speaker of its nodes.
const NETWORK_PROGRAMS: &[Program] = &[
    program("busybox", "busybox-static"),
    program("ping", "iputils-ping"),
    program("bird", "bird2"),
    program("vtysh", "frr"),
];

/// Programs that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// What everything needs.
    Common,
    /// What runs containers.
    Containers,
    /// What stands around a cluster.
    Network,
}

impl Group {
    fn programs(self) -> &'static [Program] {
        match self {
            Self::Common => PROGRAMS,
            Self::Containers => CONTAINER_PROGRAMS,
            Self::Network => NETWORK_PROGRAMS,
        }
    }
}

/// Something that is missing, and the packages that bring it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) what: String,
    pub(super) packages: Vec<&'static str>,
}

impl Missing {
    pub(super) fn new(what: impl Into<String>, packages: &[&'static str]) -> Self {
        Self { what: what.into(), packages: packages.to_vec() }
    }
}

/// The programs that are not on this machine.
pub(super) fn missing_programs(group: Group) -> Vec<Missing> {
    let ubuntu = is_ubuntu();
    let missing = group.programs().iter().filter(|program| lookup::on_path(program.name).is_none());
    missing
        .map(|program| {
            let packages = if ubuntu { program.ubuntu } else { program.debian };
            Missing::new(program.name, &packages.split(' ').collect::<Vec<_>>())
        })
        .collect()
}

/// One line about the programs; an error if some are missing still.
pub(super) fn describe(group: Group) -> Result<String> {
    let missing: Vec<_> = missing_programs(group).into_iter().map(|missing| missing.what).collect();
    if !missing.is_empty() {
        bail!("{} not found on PATH although the packages are installed", missing.join(", "));
    }
    Ok(group.programs().iter().map(|program| program.name).collect::<Vec<_>>().join(" "))
}

/// Installs what is missing; the error names the commands where that is impossible.
pub(super) fn install(missing: &[Missing]) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let installer = Installer::of_this_machine();
    if installer != Installer::Apt {
        bail!("{}", Refusal { missing, installer });
    }
    let packages = names(missing);
    eprintln!("setup: {} missing, installing {}", what(missing), packages.join(" "));
    process::step("apt-get update", apt_get().args(["-q", "update"]))?;
    let mut install = apt_get();
    install.args(["-q", "install", "--yes", "--no-install-recommends"]).args(&packages);
    process::step("apt-get install", &mut install)
}

pub(super) fn apt_get() -> std::process::Command {
    let mut apt_get = process::command("apt-get");
    // Routers run in the tests' machines only: this one starts none.
    apt_get.env("SYSTEMD_OFFLINE", "1").env("RUNLEVEL", "1");
    // Another apt-get may run: a fresh machine often updates itself at first.
    apt_get.env("DEBIAN_FRONTEND", "noninteractive").arg("-oDPkg::Lock::Timeout=300");
    apt_get
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installer {
    /// apt-get, as root
    Apt,
    /// apt-get is there, the right to use it is not
    AptOfRoot,
    /// another distribution
    Unknown,
}

impl Installer {
    fn of_this_machine() -> Self {
        if lookup::on_path("apt-get").is_none() {
            Self::Unknown
        } else if is_root() {
            Self::Apt
        } else {
            Self::AptOfRoot
        }
    }
}

/// Why nothing was installed, with what to type instead.
struct Refusal<'a> {
    missing: &'a [Missing],
    installer: Installer,
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let packages = names(self.missing).join(" ");
        write!(f, "{} missing. ", what(self.missing))?;
        match self.installer {
            Installer::Unknown => write!(
                f,
                "There is no apt-get here: install with your package manager what Debian calls\n\n    {packages}\n"
            )?,
            Installer::Apt | Installer::AptOfRoot => write!(
                f,
                "Only root can install it. Run\n\n    sudo apt-get update\n    sudo apt-get install --yes --no-install-recommends {packages}\n"
            )?,
        }
        write!(f, "\nand then the same verb again")
    }
}

fn what(missing: &[Missing]) -> String {
    missing.iter().map(|missing| missing.what.as_str()).collect::<Vec<_>>().join(", ")
}

fn names(missing: &[Missing]) -> Vec<&'static str> {
    let mut names = Vec::new();
    for package in missing.iter().flat_map(|missing| &missing.packages) {
        if !names.contains(package) {
            names.push(*package);
        }
    }
    names
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user, without a system call of our own.
    use std::os::unix::fs::MetadataExt as _;
    Path::new("/proc/self").metadata().is_ok_and(|metadata| metadata.uid() == 0)
}

fn is_ubuntu() -> bool {
    std::fs::read_to_string("/etc/os-release")
        .is_ok_and(|text| text.lines().any(|line| line == "ID=ubuntu" || line.starts_with("ID_LIKE=ubuntu")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_names_what_is_missing_and_the_commands() {
        let missing = [
            Missing::new("nft", &["nftables"]),
            Missing::new("cc", &["gcc", "libc6-dev"]),
            Missing::new("gcc", &["gcc"]),
        ];
        let text = Refusal { missing: &missing, installer: Installer::AptOfRoot }.to_string();
        assert!(text.starts_with("nft, cc, gcc missing. Only root can install it."), "{text}");
        assert!(text.contains("\n    sudo apt-get update\n"), "{text}");
        assert!(text.contains("--no-install-recommends nftables gcc libc6-dev\n"), "{text}");
    }

    #[test]
    fn refusal_without_apt_still_names_the_packages() {
        let missing = [Missing::new("nft", &["nftables"])];
        let text = Refusal { missing: &missing, installer: Installer::Unknown }.to_string();
        assert!(text.contains("no apt-get") && text.contains("\n    nftables\n"), "{text}");
    }
}
