//! `fuzz`: libFuzzer on everything that parses bytes from outside.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    artifacts::executables,
    process,
    setup::{self, Component},
    workspace::Workspace,
};

/// What cargo-fuzz passes to the compiler for coverage, of which a stable one takes all but the sanitizers: the code that is fuzzed
/// has no unsafe block.
const FLAGS: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
const HOST: &str = env!("XTASK_HOST");
/// Read by the fuzzer.
const TARGET: &str = "SPIDERPOOL_FUZZ_TARGET";
/// Longer inputs find nothing that shorter ones do not.
const LONGEST: u32 = 4096;

#[derive(Args)]
pub(crate) struct Options {
    /// One of the folders in fuzz/corpus; all of them if none is named
    target: Option<String>,
    /// For how many minutes each
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Add to the corpus in the repository what covers more
    #[arg(long)]
    update: bool,
}

pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::ensure(workspace, Component::BUILD)?;
    let corpora = workspace.root().join("fuzz/corpus");
    let targets = match &options.target {
        Some(target) => vec![target.clone()],
        None => targets(&corpora)?,
    };
    let fuzzer = build(workspace)?;
    for target in &targets {
        let corpus = corpora.join(target);
        ensure!(corpus.is_dir(), "there is no target {target}: {} is no folder", corpus.display());
        let found = workspace.target().join("fuzz/found").join(target);
        fs::create_dir_all(&found).with_context(|| found.display().to_string())?;
        println!("{target}: {} minutes", options.minutes);
        let seconds = format!("-max_total_time={}", options.minutes * 60);
        let artifacts = format!("-artifact_prefix={}/", found.display());
        let length = format!("-max_len={LONGEST}");
        let mut fuzz = fuzzer_of(&fuzzer, target);
        fuzz.args([&seconds, &artifacts, &length]).args([
            "-print_final_stats=1",
            "-timeout=10",
            "-verbosity=0",
        ]);
        // What is new goes to the first folder.
        let fresh = workspace.target().join("fuzz/corpus").join(target);
        fs::create_dir_all(&fresh).with_context(|| fresh.display().to_string())?;
        process::show(fuzz.arg(&fresh).arg(&corpus)).with_context(|| {
            format!("{target} has a finding: the input is in {}", workspace.shown(&found).display())
        })?;
        if options.update {
            process::show(
                fuzzer_of(&fuzzer, target).args(["-merge=1", "-verbosity=0"]).arg(&corpus).arg(&fresh),
            )?;
        }
    }
    Ok(())
}

fn fuzzer_of(fuzzer: &Path, target: &str) -> Command {
    let mut command = process::command(fuzzer);
    command.env(TARGET, target);
    command
}

/// The names of the folders with corpora.
fn targets(corpora: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(corpora).with_context(|| corpora.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut cargo = process::cargo(workspace);
    cargo
        .args([
            "build",
            "--profile",
            "release",
            "--package",
            "spiderpool-fuzz",
            "--features",
            "libfuzzer",
            "--bin",
            "fuzz",
        ])
        // Flags are not those of build scripts then.
        .args(["--target", HOST])
        .args(["--config", "profile.release.lto=false", "--config", "profile.release.debug-assertions=true"])
        .args(["--config", "profile.release.overflow-checks=true"])
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        // Its own directory: other flags would make cargo rebuild what is shared with everything else.
        .env("CARGO_TARGET_DIR", workspace.target().join("fuzz"));
    let built = executables(&mut cargo)?;
    built.into_iter().next().context("the crate spiderpool-fuzz has no binary")
}
