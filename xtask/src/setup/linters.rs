//! What `lint` runs beyond the workspace's own toolchain: cargo-deny, and
//! clippy for the compiler that builds the eBPF programs.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, bail};

use super::{
    ebpf::{Compiler, Toolchain},
    lookup::{self, Version},
    packages::Missing,
    stamp::Stamp,
};
use crate::{process, workspace::Workspace};

const DENY_VERSION: &str = "0.20.2";

/// Debian's clippy, unless rustup's nightly is what compiles for BPF.
pub(super) fn missing_packages(workspace: &Workspace) -> Vec<Missing> {
    let rustup = Toolchain::find(workspace).is_some_and(|found| found.compiler == Compiler::Rustup);
    if rustup || !super::ebpf::is_debian() || Path::new(DEBIAN_CLIPPY).exists() {
        return Vec::new();
    }
    vec![Missing::new("clippy for the eBPF programs", &["rust-web-clippy"])]
}

pub(super) fn ensure(workspace: &Workspace) -> Result<String> {
    deny(workspace)?;
    let Some(toolchain) = Toolchain::find(workspace) else { return Ok(format!("cargo-deny {DENY_VERSION}")) };
    let clippy = match toolchain.compiler {
        Compiler::Debian if Path::new(DEBIAN_CLIPPY).exists() => DEBIAN_CLIPPY,
        Compiler::Debian => bail!("{DEBIAN_CLIPPY} is missing: install the package that it belongs to"),
        Compiler::Rustup => nightly_clippy()?,
    };
    Ok(format!("cargo-deny {DENY_VERSION}, {clippy}"))
}

const DEBIAN_CLIPPY: &str = "/usr/bin/cargo-clippy";

fn nightly_clippy() -> Result<&'static str> {
    let mut probe = process::other_toolchain("rustup");
    if process::output(probe.args(["run", "nightly", "cargo-clippy", "--version"])).is_none() {
        let mut add = process::other_toolchain("rustup");
        process::step(
            "clippy of rustup's nightly",
            add.args(["component", "add", "clippy", "--toolchain", "nightly"]),
        )?;
    }
    Ok("clippy of rustup's nightly")
}

fn deny(workspace: &Workspace) -> Result<()> {
    let program = workspace.tools().join("bin/cargo-deny");
    let stamp = Stamp::new(workspace, &program, DENY_VERSION.to_owned());
    if stamp.origin().is_some() {
        return Ok(());
    }
    let elsewhere = lookup::on_path("cargo-deny").filter(|found| {
        let text = process::output(process::command(found).arg("--version"));
        text.and_then(|text| Version::find(&text)) >= Version::find(DENY_VERSION)
    });
    if let Some(elsewhere) = elsewhere {
        fs::copy(&elsewhere, &program).with_context(|| format!("cannot copy {}", elsewhere.display()))?;
        return stamp.write(&elsewhere.display().to_string());
    }
    let mut install = process::cargo_install(workspace, "cargo-deny", DENY_VERSION);
    // It runs for a second: quick to compile counts more than quick to run.
    install.args(["--no-default-features", "--debug"]);
    process::step(&format!("cargo-deny {DENY_VERSION} (a few minutes)"), &mut install)?;
    stamp.write("cargo install")
}
