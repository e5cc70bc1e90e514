//! `lint`: what can be said about a change without running it.

use anyhow::Result;

use crate::{
    crds, process,
    setup::{self, Component},
    workspace::Workspace,
};

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, &[Component::Packages, Component::Ebpf, Component::CargoDeny])?;
    format(workspace)?;
    clippy(workspace)?;
    crds::check(workspace)?;
    deny(workspace)
}

fn format(workspace: &Workspace) -> Result<()> {
    process::show(process::cargo(workspace).args(["fmt", "--all", "--check"]))?;
    let mut ebpf = process::cargo(workspace);
    process::show(ebpf.args(["fmt", "--manifest-path", "spiderpool-ebpf/Cargo.toml", "--check"]))
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo(workspace);
    process::show(cargo.args(["clippy", "--workspace", "--all-targets", "--quiet", "--", "-Dwarnings"]))
}

fn deny(workspace: &Workspace) -> Result<()> {
    let mut deny = process::command(workspace.tools().join("bin/cargo-deny"));
    deny.current_dir(workspace.root());
    process::show(deny.args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
}
