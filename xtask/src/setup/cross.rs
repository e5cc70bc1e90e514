//! What builds for another architecture: a C compiler, and Rust's target.

use anyhow::{Context as _, Result};

use super::{
    lookup,
    packages::{self, Missing},
};
use crate::{architecture::Architecture, process};

/// Makes sure that programs for `architecture` can be run here.
pub(crate) fn ensure_emulator(architecture: Architecture) -> Result<()> {
    let emulator = architecture.emulator();
    if lookup::on_path(emulator).is_none() {
        packages::install(&[Missing::new(emulator, &["qemu-user-static"])])?;
    }
    Ok(())
}

/// Makes sure that programs for `architecture` can be built here.
pub(crate) fn ensure(architecture: Architecture) -> Result<()> {
    let (compiler, names) = architecture.cross_compiler();
    if lookup::on_path(compiler).is_none() {
        packages::install(&[Missing::new(compiler, &names.split(' ').collect::<Vec<_>>())])?;
    }
    let target = architecture.cross_target();
    let installed = process::output(process::command("rustup").args(["target", "list", "--installed"]));
    let installed = installed.with_context(|| format!("no rustup here: install Rust's target {target}"))?;
    if !installed.lines().any(|line| line == target) {
        process::step(
            &format!("Rust's target {target}"),
            process::command("rustup").args(["target", "add", target]),
        )?;
    }
    Ok(())
}
