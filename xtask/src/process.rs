//! Starting other programs: one short line per step, their output only when
//! they fail, and an environment without what `cargo run` left in it.

use std::{
    env,
    io::{self, Read as _, Write as _},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail};

use crate::workspace::Workspace;

/// A command without the variables by which the cargo that runs this xtask
/// describes itself. What the developer set (`RUSTFLAGS`, proxies) stays.
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(set_by_cargo_run) {
            command.env_remove(name);
        }
    }
    command
}

/// A command for another Rust toolchain: nothing that chooses a compiler, its
/// flags or its output directory is inherited.
pub(crate) fn other_toolchain(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = command(program);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(chooses_toolchain) {
            command.env_remove(name);
        }
    }
    command
}

/// The cargo of this workspace, to be run at its top.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut cargo = command(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace.root()).env("CARGO_TARGET_DIR", workspace.target());
    cargo
}

/// `cargo install` of a tool, with its own lock file, into `tools/bin`.
pub(crate) fn cargo_install(workspace: &Workspace, package: &str, version: &str) -> Command {
    let mut cargo = other_toolchain(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(workspace.root());
    cargo.args(["install", "--locked", "--force", package, "--version", version, "--root"]);
    cargo.arg(workspace.tools());
    cargo
}

fn set_by_cargo_run(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|prefix| name.starts_with(prefix))
        || ["CARGO", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "LD_LIBRARY_PATH"].contains(&name)
}

fn chooses_toolchain(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "RUSTC",
        "RUSTC_BOOTSTRAP",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTUP_TOOLCHAIN",
        "RUST_RECURSION_COUNT",
        "CARGO_ENCODED_RUSTFLAGS",
    ];
    NAMES.contains(&name)
        || (name.starts_with("CARGO_BUILD_") && name != "CARGO_BUILD_JOBS")
        || ["CARGO_PROFILE_", "CARGO_TARGET_", "CARGO_UNSTABLE_"].iter().any(|p| name.starts_with(p))
}

/// How a command is typed in a shell, for messages.
pub(crate) fn typed(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| {
        let word = word.to_string_lossy();
        if word.contains([' ', '"', '$', '*']) { format!("'{word}'") } else { word.into_owned() }
    }));
    words.join(" ")
}

/// Runs a step whose output interests only when it fails.
pub(crate) fn step(title: &str, command: &mut Command) -> Result<()> {
    let start = Instant::now();
    eprint!("  {title} ... ");
    io::stderr().flush()?;
    let (mut reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("cannot start `{}`", typed(command)))?;
    // The command holds the writing ends: without them the reader never sees the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut output = Vec::new();
    reader.read_to_end(&mut output)?;
    let status = child.wait()?;
    let seconds = start.elapsed().as_secs_f32();
    if status.success() {
        eprintln!("{seconds:.1} s");
        return Ok(());
    }
    eprintln!("failed after {seconds:.1} s");
    eprintln!("{}", String::from_utf8_lossy(&output).trim_end());
    bail!("`{}` failed with {status}; its output is above", typed(command))
}

/// Runs a command that shows its own output.
pub(crate) fn show(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start `{}`", typed(command)))?;
    if !status.success() {
        bail!("`{}` failed with {status}; its output is above", typed(command));
    }
    Ok(())
}

/// What a command prints, or `None` if it cannot be started or fails.
pub(crate) fn output(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_toolchain_inherits_no_choice_of_compiler() {
        for name in ["RUSTUP_TOOLCHAIN", "RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
            assert!(chooses_toolchain(name), "{name} must be removed");
        }
        for name in ["CARGO_HOME", "CARGO_BUILD_JOBS", "CARGO_HTTP_PROXY", "CARGO_NET_OFFLINE", "PATH"] {
            assert!(!chooses_toolchain(name) && !set_by_cargo_run(name), "{name} must stay");
        }
    }

    #[test]
    fn failing_step_names_the_command_and_keeps_its_status() {
        let error = step("test", Command::new("sh").args(["-c", "echo out; exit 3"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`sh -c 'echo out; exit 3'` failed with exit status: 3; its output is above"
        );
    }

    #[test]
    fn step_with_much_output_on_both_streams_does_not_block() {
        let script = "i=0; while [ $i -lt 20000 ]; do echo line; echo line >&2; i=$((i+1)); done";
        step("test", Command::new("sh").args(["-c", script])).unwrap();
    }
}
