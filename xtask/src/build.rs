//! `build`: everything that runs on a node or in an image. All of it is static:
//! plugins run on hosts with any libc, the others in images with none.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::{
    build_ebpf, elf, process,
    setup::{self, Component},
    workspace::Workspace,
};

const HOST: &str = env!("XTASK_HOST");

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, Component::BUILD)?;
    build(workspace)?;
    show(workspace, &workspace.bpf_object())?;
    let mut programs: Vec<_> = fs::read_dir(workspace.bin())?.flatten().map(|entry| entry.path()).collect();
    programs.sort();
    programs.iter().try_for_each(|program| show(workspace, program))
}

fn show(workspace: &Workspace, path: &Path) -> Result<()> {
    let size = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    println!("{:<32} {:>7.2} MB", workspace.shown(path).display(), size as f64 / 1e6);
    Ok(())
}

/// Builds the eBPF object, the programs of the images and the plugins.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    build_ebpf::build(workspace)?;
    let mut daemons = release(workspace);
    daemons.args(["--package", "spiderpool-agent", "--package", "spiderpool-controller", "--bins"]);
    let mut plugins = static_build(workspace, "plugin");
    plugins.args(["--package", "spiderpool-cni", "--bins"]);
    publish_all(workspace, &mut daemons)?;
    publish_all(workspace, &mut plugins)?;
    testbox(workspace)
}

/// Builds what tests put into machines and pods.
pub(crate) fn testbox(workspace: &Workspace) -> Result<()> {
    let mut cargo = static_build(workspace, "plugin");
    cargo.args(["--package", "spiderpool-testbox", "--bins"]);
    publish_all(workspace, &mut cargo)
}

/// Builds static programs and puts them where everything looks for them.
fn publish_all(workspace: &Workspace, cargo: &mut Command) -> Result<()> {
    let bin = workspace.bin();
    for program in executables(cargo)? {
        ensure!(
            elf::is_static(&program)?,
            "{} needs a dynamic loader: is the C library of this target available as static library?",
            program.display()
        );
        publish(&program, &bin.join(file_name(&program)?))?;
    }
    Ok(())
}

fn file_name(program: &Path) -> Result<&OsStr> {
    program.file_name().with_context(|| format!("{} has no name", program.display()))
}

/// A `cargo build` of static release binaries; what to build follows.
pub(crate) fn release(workspace: &Workspace) -> Command {
    static_build(workspace, "release")
}

fn static_build(workspace: &Workspace, profile: &str) -> Command {
    let mut cargo = process::cargo(workspace);
    let mut flags = vec!["-Ctarget-feature=+crt-static".to_owned()];
    flags.extend(without_places());
    cargo
        .args(["build", "--profile", profile, "--target", HOST])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // Its own directory: other flags would make cargo rebuild what is shared with everything else.
        .env("CARGO_TARGET_DIR", workspace.target().join("static"));
    cargo
}

/// Flags by which a program does not depend on where this machine keeps the sources of its dependencies: panics name
/// files. Those of the workspace are relative already.
pub(crate) fn without_places() -> Vec<String> {
    let home = env::home_dir();
    let cargo_home =
        env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(home.as_deref()?.join(".cargo")));
    // One folder per registry.
    let registries = cargo_home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let mut sources: Vec<_> = registries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    sources.sort();
    // Of several that fit, the last one counts (the rustc book, "Remap source paths").
    let places = home.into_iter().chain(sources).filter(|place| place.parent().is_some());
    places.map(|place| remap(&place)).collect()
}

/// The flag by which files below `place` are named without it.
pub(crate) fn remap(place: &Path) -> String {
    format!("--remap-path-prefix={}=", place.display())
}

/// Runs a `cargo build` that shows its progress, and answers with the executables it made.
pub(crate) fn executables(cargo: &mut Command) -> Result<Vec<PathBuf>> {
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", process::typed(cargo)))?;
    if !output.status.success() {
        bail!("`{}` failed with {}; its output is above", process::typed(cargo), output.status);
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    let executables: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| {
            serde_json::from_str::<Value>(line).ok()?["executable"].as_str().map(PathBuf::from)
        })
        .collect();
    ensure!(!executables.is_empty(), "`{}` made no executable", process::typed(cargo));
    Ok(executables)
}

/// Replaces `to` at once: who runs or loads the old file keeps it, and nobody sees half a new one.
pub(crate) fn publish(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let fresh = to.with_extension(format!("new-{}", std::process::id()));
    fs::copy(from, &fresh).with_context(|| format!("cannot copy {}", from.display()))?;
    fs::rename(&fresh, to).with_context(|| format!("cannot write {}", to.display()))
}
