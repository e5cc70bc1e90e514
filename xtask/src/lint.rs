//! `lint`: what can be said about a change without running it.

use std::{path::Path, process::Stdio};

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf, crds, process,
    setup::{self, Component, Toolchain},
    workspace::Workspace,
};

const EBPF_MANIFEST: &str = "spiderpool-ebpf/Cargo.toml";

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, Component::LINT)?;
    lock_files(workspace)?;
    format(workspace)?;
    clippy(workspace)?;
    clippy_ebpf(workspace)?;
    crds::check(workspace)?;
    deny(workspace, None)?;
    deny(workspace, Some(EBPF_MANIFEST.as_ref()))
}

/// Cargo would repair an outdated Cargo.lock silently, and build something else than was committed.
fn lock_files(workspace: &Workspace) -> Result<()> {
    for manifest in ["Cargo.toml", EBPF_MANIFEST] {
        let mut cargo = process::cargo(workspace);
        cargo.args(["metadata", "--locked", "--format-version=1", "--manifest-path", manifest]);
        process::show(cargo.stdout(Stdio::null())).context("run `cargo check` and commit Cargo.lock")?;
    }
    Ok(())
}

fn format(workspace: &Workspace) -> Result<()> {
    let fmt = |arguments: &[&str]| {
        process::show(process::cargo(workspace).args(["fmt", "--check"]).args(arguments))
            .context("run `cargo fmt --all`, also in spiderpool-ebpf")
    };
    fmt(&["--all"])?;
    fmt(&["--manifest-path", EBPF_MANIFEST])
}

fn clippy(workspace: &Workspace) -> Result<()> {
    let mut cargo = process::cargo(workspace);
    process::show(cargo.args(["clippy", "--workspace", "--all-targets", "--", "-Dwarnings"]))
}

fn clippy_ebpf(workspace: &Workspace) -> Result<()> {
    let toolchain =
        Toolchain::find(workspace).context("no toolchain for eBPF: run `cargo xtask setup ebpf`")?;
    let mut cargo = build_ebpf::clippy(workspace, &toolchain);
    process::show(cargo.args(["--", "-Dwarnings"]))
}

/// Checks a dependency tree; that of the eBPF programs is a workspace of its own.
fn deny(workspace: &Workspace, manifest: Option<&Path>) -> Result<()> {
    let mut deny = process::command(workspace.tools().join("bin/cargo-deny"));
    deny.current_dir(workspace.root()).args(["--log-level", "error", "--config", "deny.toml"]);
    if let Some(manifest) = manifest {
        deny.arg("--manifest-path").arg(manifest);
    }
    process::show(deny.args(["check", "bans", "licenses", "sources"]))
}
