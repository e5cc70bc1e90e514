//! `setup`: finds what the other verbs need, installs what is missing, and
//! refuses with the commands to type where it cannot.

pub(crate) mod cross;
mod debian;
mod ebpf;
mod go;
mod linters;
mod lookup;
mod packages;
mod stamp;
mod virtual_machine;

use std::{
    fs::{self, File},
    time::Instant,
};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use self::packages::Group;
pub(crate) use self::{
    ebpf::{Compiler, Toolchain},
    packages::is_root,
    virtual_machine::{Emulator, Image},
};
use crate::{kernel::Kernel, workspace::Workspace};

#[derive(Args)]
pub(crate) struct Options {
    /// What to set up; everything if nothing is named
    what: Vec<Component>,
}

/// Something that can be missing on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Component {
    /// Programs of the distribution: ip, nft, bpftool, a C compiler and others
    Packages,
    /// A Rust compiler for the BPF target, and bpf-linker
    Ebpf,
    /// etcd
    Etcd,
    /// kube-apiserver, kube-proxy, kubectl
    Kubernetes,
    /// The CNI reference plugins: macvlan, host-local, ptp and others
    CniPlugins,
    /// containerd and runc
    Containers,
    /// busybox, BIRD and FRR: what stands around a cluster
    Network,
    /// kubelet, kube-controller-manager, kube-scheduler
    KubernetesNode,
    /// Multus, the plugin that attaches further networks
    Multus,
    /// Helm
    Helm,
    /// cargo-deny, and clippy for the eBPF programs
    Linters,
}

impl Component {
    const ALL: &[Self] = &[
        Self::Packages,
        Self::Ebpf,
        Self::Etcd,
        Self::Kubernetes,
        Self::CniPlugins,
        Self::Containers,
        Self::Network,
        Self::KubernetesNode,
        Self::Multus,
        Self::Helm,
        Self::Linters,
    ];
    /// What compiles everything.
    pub(crate) const BUILD: &[Self] = &[Self::Packages, Self::Ebpf];
    /// What checks the sources.
    pub(crate) const LINT: &[Self] = &[Self::Packages, Self::Ebpf, Self::Linters];
    /// What runs the result: tests, demo, benchmarks.
    pub(crate) const RUN: &[Self] =
        &[Self::Packages, Self::Ebpf, Self::Etcd, Self::Kubernetes, Self::CniPlugins];

    /// What images are made of, beside [`Self::BUILD`].
    pub(crate) const IMAGE: &[Self] = &[Self::CniPlugins, Self::Multus];
    /// What runs a cluster with kubelets, beside [`Self::RUN`].
    pub(crate) const CLUSTER: &[Self] =
        &[Self::Containers, Self::Network, Self::KubernetesNode, Self::Multus, Self::Helm];

    /// The programs that the component consists of, as shown to the user; installs what is missing.
    fn ensure(self, workspace: &Workspace) -> Result<String> {
        match self {
            Self::Packages => packages::describe(Group::Common),
            Self::Containers => packages::describe(Group::Containers),
            Self::Network => packages::describe(Group::Network),
            Self::Ebpf => ebpf::ensure(workspace),
            Self::Etcd => go::ensure(workspace, &go::ETCD),
            Self::Kubernetes => go::ensure(workspace, &go::KUBERNETES),
            Self::CniPlugins => go::ensure(workspace, &go::CNI_PLUGINS),
            Self::KubernetesNode => go::ensure(workspace, &go::KUBERNETES_NODE),
            Self::Multus => go::ensure(workspace, &go::MULTUS),
            Self::Helm => go::ensure(workspace, &go::HELM),
            Self::Linters => linters::ensure(workspace),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    let start = Instant::now();
    let what = if options.what.is_empty() { Component::ALL } else { &options.what };
    for (component, found) in install(workspace, what)? {
        println!("{:<15} {found}", component.name());
    }
    println!("all there, {:.1} s", start.elapsed().as_secs_f32());
    Ok(())
}

/// Makes sure of `what`; says nothing when nothing is missing.
pub(crate) fn ensure(workspace: &Workspace, what: &[Component]) -> Result<()> {
    install(workspace, what).map(drop)
}

/// Makes sure of what runs `kernels` in virtual machines.
pub(crate) fn virtual_machines(workspace: &Workspace, kernels: &[Kernel]) -> Result<(Emulator, Vec<Image>)> {
    let _lock = lock(workspace)?;
    virtual_machine::ensure(workspace, kernels).context("cannot set up virtual machines")
}

fn install(workspace: &Workspace, what: &[Component]) -> Result<Vec<(Component, String)>> {
    let _lock = lock(workspace)?;
    let mut missing = Vec::new();
    if what.contains(&Component::Packages) {
        missing.extend(packages::missing_programs(Group::Common));
    }
    if what.contains(&Component::Containers) {
        missing.extend(packages::missing_programs(Group::Containers));
    }
    if what.contains(&Component::Network) {
        missing.extend(packages::missing_programs(Group::Network));
    }
    if what.contains(&Component::Ebpf) {
        missing.extend(ebpf::missing_packages(workspace));
    }
    if what.contains(&Component::Linters) {
        missing.extend(linters::missing_packages(workspace));
    }
    packages::install(&missing)?;
    what.iter()
        .map(|component| {
            let found =
                component.ensure(workspace).with_context(|| format!("cannot set up {}", component.name()))?;
            Ok((*component, found))
        })
        .collect()
}

/// Two setups at a time would build and replace the same files.
fn lock(workspace: &Workspace) -> Result<File> {
    let tools = workspace.tools();
    fs::create_dir_all(tools.join("bin")).with_context(|| format!("cannot create {}", tools.display()))?;
    let path = tools.join(".lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        eprintln!("setup: waiting for another one to finish");
    }
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}
