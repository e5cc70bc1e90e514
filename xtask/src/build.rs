//! `build`: everything that runs on a node or in an image. All of it is static:
//! plugins run on hosts with any libc, the others in images with none.

use std::{ffi::OsStr, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    architecture::Architecture,
    artifacts::{executables, publish, without_places},
    build_ebpf, elf, process,
    setup::{self, Component},
    workspace::Workspace,
};

const HOST: &str = env!("XTASK_HOST");

/// A static program relocates itself at start, and its table of relocations stays resident: in the usual format
/// 0.9 MiB of the agent, in this one 10 KiB. The start-up code of the C library must know the format: glibc 2.36,
/// musl 1.2.4. With an older one programs crash at once.
const COMPACT_RELOCATIONS: &str = "-Clink-arg=-Wl,-z,pack-relative-relocs";

/// The same for a linker that is not called through a C compiler.
const CROSS_COMPACT_RELOCATIONS: &str = "-Clink-arg=-zpack-relative-relocs";

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
    of_images(workspace)?;
    testbox(workspace)
}

/// Builds the programs of the images and the plugins.
pub(crate) fn of_images(workspace: &Workspace) -> Result<()> {
    let mut daemons = release(workspace);
    daemons.args(["--package", "spiderpool-agent", "--package", "spiderpool-controller", "--bins"]);
    let mut plugins = static_build(workspace, "plugin");
    plugins.args(["--package", "spiderpool-cni", "--bins"]);
    publish_all(workspace, &mut daemons)?;
    publish_all(workspace, &mut plugins)
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
    let target = match workspace.architecture() {
        Architecture::HOST => {
            flags.push(COMPACT_RELOCATIONS.to_owned());
            HOST
        }
        other => {
            // Rust's own linker: this machine's knows its own architecture alone.
            flags.extend(["-Clinker=rust-lld".to_owned(), CROSS_COMPACT_RELOCATIONS.to_owned()]);
            let variable = format!("CC_{}", other.cross_target().replace('-', "_"));
            cargo.env(variable, other.cross_compiler().0);
            other.cross_target()
        }
    };
    flags.extend(without_places());
    cargo
        .args(["build", "--profile", profile, "--target", target])
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // Its own directory: other flags would make cargo rebuild what is shared with everything else.
        .env("CARGO_TARGET_DIR", workspace.target().join("static"));
    cargo
}
