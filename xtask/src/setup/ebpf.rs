//! What compiles the eBPF programs: a Rust compiler that builds `core` from
//! source (a nightly of rustup with rust-src, or Debian's compiler with its
//! sources), and a bpf-linker whose LLVM is at least as new as the compiler's.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    lookup::{self, Version},
    packages::Missing,
    stamp::Stamp,
};
use crate::{process, workspace::Workspace};

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM of Debian's compiler, with which its bpf-linker is built.
const DEBIAN_LLVM: u32 = 22;
const DEBIAN_COMPILER: &[&str] = &["rustc-web", "rust-web-src", "cargo-web"];
const DEBIAN_LINKER: &[&str] = &["g++", "llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "zlib1g-dev"];
/// As the Cargo.toml of the programs says.
const OLDEST_COMPILER: Version = Version::new(1, 95, 0);

const CORE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";
const HOW: &str = "install a nightly with its sources and bpf-linker yourself:\n\n    \
    rustup toolchain install nightly --profile minimal --component rust-src\n    \
    cargo install bpf-linker      # with the LLVM that its README asks for; or its release, on PATH\n\n\
    and then run the same verb again";

/// A Rust compiler that can build for the BPF target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// `rustup run nightly`
    Rustup,
    /// /usr/bin/rustc and /usr/bin/cargo
    Debian,
}

/// What builds the eBPF programs.
pub(crate) struct Toolchain {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// A compiler on this machine, with the LLVM that it is built on.
struct Found {
    compiler: Compiler,
    version: Version,
    llvm: u32,
}

impl Toolchain {
    /// The first compiler that has a linker, if any.
    pub(crate) fn find(workspace: &Workspace) -> Option<Self> {
        compilers().into_iter().find_map(|found| {
            let linker = linker(workspace, &found)?;
            Some(Self { compiler: found.compiler, linker })
        })
    }
}

/// The packages that the machine needs before [`ensure`] can do the rest.
pub(super) fn missing_packages(workspace: &Workspace) -> Vec<Missing> {
    if Toolchain::find(workspace).is_some() || !is_debian() {
        return Vec::new();
    }
    let mut missing = Vec::new();
    if !compilers().iter().any(|found| found.llvm <= DEBIAN_LLVM) {
        missing.push(Missing::new("a Rust compiler with sources", DEBIAN_COMPILER));
    }
    if !llvm_folder(DEBIAN_LLVM).join("bin/llvm-config").exists() {
        missing.push(Missing::new("LLVM for bpf-linker", DEBIAN_LINKER));
    }
    missing
}

/// Installs compiler and linker; packages are there already.
pub(super) fn ensure(workspace: &Workspace) -> Result<String> {
    if let Some(toolchain) = Toolchain::find(workspace) {
        return Ok(describe(&toolchain));
    }
    if compilers().is_empty() {
        install_nightly()?;
    }
    let mut found = compilers();
    found.sort_by_key(|found| !llvm_folder(found.llvm).join("bin/llvm-config").exists());
    let Some(found) = found.first() else {
        bail!("no Rust compiler that can build for BPF; {HOW}");
    };
    let llvm = found.llvm;
    if !llvm_folder(llvm).join("bin/llvm-config").exists() {
        bail!(
            "bpf-linker cannot be built here: the compiler has LLVM {llvm}, whose development files are missing; {HOW}"
        );
    }
    build_linker(workspace, llvm)?;
    let toolchain = Toolchain::find(workspace).context("the compiler just installed is not found")?;
    Ok(describe(&toolchain))
}

fn describe(toolchain: &Toolchain) -> String {
    let compiler = match toolchain.compiler {
        Compiler::Rustup => "rustup's nightly",
        Compiler::Debian => "/usr/bin/rustc",
    };
    format!("{compiler}, {}", toolchain.linker.display())
}

/// All usable compilers, the preferred one first.
fn compilers() -> Vec<Found> {
    let mut found = Vec::new();
    if nightly_has_sources() {
        let mut rustc = process::other_toolchain("rustup");
        rustc.args(["run", "nightly", "rustc"]);
        found.extend(probe(Compiler::Rustup, rustc));
    }
    if ["bin/rustc", "bin/cargo", CORE].iter().all(|path| Path::new("/usr").join(path).exists()) {
        found.extend(probe(Compiler::Debian, process::other_toolchain("/usr/bin/rustc")));
    }
    found.retain(|found| found.version >= OLDEST_COMPILER);
    found
}

fn probe(compiler: Compiler, mut rustc: Command) -> Option<Found> {
    let text = process::output(rustc.arg("-vV"))?;
    let line = |key: &str| text.lines().find_map(|line| Version::find(line.strip_prefix(key)?));
    Some(Found { compiler, version: line("release:")?, llvm: line("LLVM version:")?.major })
}

fn nightly_has_sources() -> bool {
    let home = env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")))
        .unwrap_or_default();
    let Ok(toolchains) = fs::read_dir(home.join("toolchains")) else { return false };
    // "nightly-HOST", not the dated "nightly-2026-01-01-HOST", which `rustup run nightly` would not take.
    let is_nightly = |name: &str| {
        name.strip_prefix("nightly-").is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    toolchains
        .flatten()
        .any(|entry| entry.file_name().to_str().is_some_and(is_nightly) && entry.path().join(CORE).exists())
}

/// A linker for this compiler: what is on PATH for rustup's, else our own build.
fn linker(workspace: &Workspace, found: &Found) -> Option<PathBuf> {
    let program = linker_path(workspace);
    let fits =
        (found.llvm..=DEBIAN_LLVM.max(found.llvm)).any(|llvm| stamp(workspace, llvm).origin().is_some());
    if fits {
        return Some(program);
    }
    if found.compiler == Compiler::Debian {
        return None;
    }
    lookup::on_path("bpf-linker")
}

fn linker_path(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

/// The stamp of our own bpf-linker, built with an LLVM.
fn stamp(workspace: &Workspace, llvm: u32) -> Stamp {
    Stamp::new(workspace, &linker_path(workspace), format!("{LINKER_VERSION} llvm-{llvm}"))
}

fn llvm_folder(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

fn install_nightly() -> Result<()> {
    if lookup::on_path("rustup").is_none() {
        bail!("there is no rustup to install a nightly with; {HOW}");
    }
    let mut rustup = process::other_toolchain("rustup");
    rustup.args(["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"]);
    process::step("Rust nightly with rust-src", &mut rustup).with_context(|| format!("rustup failed; {HOW}"))
}

fn build_linker(workspace: &Workspace, llvm: u32) -> Result<()> {
    let mut cargo = process::cargo_install(workspace, "bpf-linker", LINKER_VERSION);
    // bpf-linker asks for this variable only, not for LLVM_SYS_*_PREFIX.
    cargo.env("LLVM_PREFIX", llvm_folder(llvm));
    cargo.args(["--no-default-features", "--features", &format!("llvm-{llvm}")]);
    process::step(&format!("bpf-linker {LINKER_VERSION} with LLVM {llvm} (about 1 minute)"), &mut cargo)?;
    stamp(workspace, llvm).write("cargo install")
}

/// Whether this is Debian itself, whose package names these are.
pub(super) fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}
