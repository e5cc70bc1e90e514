//! What cargo builds: where it is, and what must not be in it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::{Artifact, Message};

use crate::process;

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
    let paths: Vec<_> = built(cargo)?.into_iter().filter_map(|artifact| artifact.executable).collect();
    ensure!(!paths.is_empty(), "`{}` made no executable", process::typed(cargo));
    Ok(paths.into_iter().map(Into::into).collect())
}

/// Runs a cargo that builds and shows its progress, and answers with all it has made or found made.
pub(crate) fn built(cargo: &mut Command) -> Result<Vec<Artifact>> {
    cargo.arg("--message-format=json-render-diagnostics").stdout(Stdio::piped());
    let output = cargo
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start `{}`", process::typed(cargo)))?;
    if !output.status.success() {
        bail!("`{}` failed with {}; its output is above", process::typed(cargo), output.status);
    }
    let mut artifacts = Vec::new();
    for message in Message::parse_stream(&*output.stdout) {
        if let Message::CompilerArtifact(artifact) = message.context("a message of cargo")? {
            artifacts.push(artifact);
        }
    }
    Ok(artifacts)
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
