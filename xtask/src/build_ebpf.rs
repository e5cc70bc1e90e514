//! `build-ebpf`: the eBPF programs, compiled for the BPF target by a toolchain
//! of their own, at a path that everything else relies on.

use std::{fs, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    artifacts::{executables, publish, remap, without_places},
    elf::{self, Entry},
    process,
    setup::{self, Compiler, Component, Toolchain},
    workspace::Workspace,
};

const TARGET: &str = if cfg!(target_endian = "big") { "bpfeb-unknown-none" } else { "bpfel-unknown-none" };

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure(workspace, Component::BUILD)?;
    build(workspace)?;
    let object = workspace.bpf_object();
    let size = fs::metadata(&object).with_context(|| format!("cannot read {}", object.display()))?.len();
    println!("{}  {size} bytes", workspace.shown(&object).display());
    let listing = elf::list(&object)?;
    print("programs", &listing.programs);
    print("maps", &listing.maps);
    Ok(())
}

fn print(title: &str, entries: &[Entry]) {
    println!("{title} ({})", entries.len());
    for Entry { section, name } in entries {
        println!("  {section:<18} {name}");
    }
}

/// Builds the object and puts it where [`Workspace::bpf_object`] says.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let toolchain =
        Toolchain::find(workspace).context("no toolchain for eBPF: run `cargo xtask setup ebpf`")?;
    let mut cargo = cargo(workspace, &toolchain, Subcommand::Build);
    let built = executables(&mut cargo)?;
    let built = built.first().context("the crate spiderpool-ebpf has no binary")?;
    publish(built, &workspace.bpf_object())
}

/// Clippy on the programs, as the compiler that builds them sees them.
pub(crate) fn clippy(workspace: &Workspace, toolchain: &Toolchain) -> Command {
    cargo(workspace, toolchain, Subcommand::Clippy)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Subcommand {
    Build,
    Clippy,
}

/// A cargo that compiles for BPF, in the eBPF crate and with its own target directory.
fn cargo(workspace: &Workspace, toolchain: &Toolchain, subcommand: Subcommand) -> Command {
    let mut cargo = match toolchain.compiler {
        Compiler::Rustup => {
            let mut rustup = process::other_toolchain("rustup");
            rustup.args(["run", "nightly", "cargo"]);
            rustup
        }
        Compiler::Debian => debian_cargo(subcommand),
    };
    cargo.arg(match subcommand {
        Subcommand::Build => "build",
        Subcommand::Clippy => "clippy",
    });
    let linker = format!("-Clinker={}", toolchain.linker.display());
    // One flag per field, so that a path with spaces stays one. BTF gives bpftool the names of fields.
    let mut flags = vec![linker, "-Clink-arg=--btf".to_owned(), "-Cdebuginfo=2".to_owned()];
    // By default bpf-linker forbids LLVM to write zeros and copies in place: each becomes a call of a loop over bytes, which cost a
    // third of a run's time.
    flags.push("-Clink-arg=--disable-expand-memcpy-in-order".to_owned());
    flags.extend(without_places());
    // What debug information calls the folder of the compilation.
    flags.push(remap(workspace.root()));
    cargo
        .args(["-Zbuild-std=core", "--release", "--target", TARGET])
        .current_dir(workspace.root().join("spiderpool-ebpf"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", workspace.target().join("ebpf"));
    cargo
}

fn debian_cargo(subcommand: Subcommand) -> Command {
    let mut cargo = match subcommand {
        Subcommand::Build => process::other_toolchain("/usr/bin/cargo"),
        Subcommand::Clippy => {
            // By its path: `cargo clippy` would find rustup's on PATH.
            let mut clippy = process::other_toolchain("/usr/bin/cargo-clippy");
            clippy.env("CARGO", "/usr/bin/cargo");
            clippy
        }
    };
    // Debian's compiler is a stable one; build-std is not stable yet.
    cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
    cargo
}
