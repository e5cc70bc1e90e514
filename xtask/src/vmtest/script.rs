//! The script that runs test programs in a guest.

use std::{env, ffi::OsStr};

use super::suite::Extent;
use crate::{process, test_program::TestProgram, workspace::Workspace};

/// What tests read that whoever starts them may set.
const PASSED_ON: [&str; 3] = ["CI", "RUST_BACKTRACE", RANDOM_INPUTS];
const RANDOM_INPUTS: &str = "PROPTEST_CASES";
/// Read by `spiderpool_tests::poll`: an emulated processor is eight times slower, namespaces and their links are 25 times.
const TIME_FACTOR: (&str, &str) = ("SPIDERPOOL_TIME_FACTOR", "30");
/// Read by `spiderpool_tests::link_kinds`: these kernels make all that are not newer.
const GUEST: (&str, &str) = ("SPIDERPOOL_VMTEST", "1");

/// Runs a program, its streams as one; whoever reads standard error learns what has failed.
const RUN: &str = r#"
failed=0
run() {
    name=$1 folder=$2
    shift 2
    cd "$folder"
    export CARGO_MANIFEST_DIR=$folder
    echo "     Running $name"
    start=$(date +%s)
    if "$@" 2>&1; then result=ok; else result=failed failed=1; echo "$name" >&2; fi
    echo "$name: $result, $(($(date +%s) - start)) s"
}
"#;

/// The script that runs `programs` with these arguments.
pub(super) fn of(
    workspace: &Workspace,
    programs: &[TestProgram],
    extent: Extent,
    arguments: &[&str],
) -> String {
    let mut environment = process::command("true");
    workspace.export(&mut environment);
    environment.envs([TIME_FACTOR, GUEST]);
    if let Some(inputs) = extent.random_inputs() {
        environment.env(RANDOM_INPUTS, inputs.to_string());
    }
    let set = environment.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    let passed_on = PASSED_ON.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?)));
    let mut text = String::new();
    for (name, value) in passed_on.chain(set) {
        line(&mut text, &["export".to_owned(), format!("{}={}", name.to_string_lossy(), quoted(value))]);
    }
    text.push_str(RUN);
    for program in programs {
        let name = format!("{} of {}", program.target, program.package);
        let mut words = vec!["run".to_owned(), quoted(&name), quoted(&program.folder), quoted(&program.path)];
        words.extend(arguments.iter().map(quoted));
        line(&mut text, &words);
    }
    text + "exit $failed\n"
}

fn line(text: &mut String, words: &[String]) {
    text.push_str(&words.join(" "));
    text.push('\n');
}

/// What a script's standard error says has failed.
pub(super) fn failed(code: u8, stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let names: Vec<_> = text.lines().filter(|line| line.contains(" of ")).collect();
    if names.is_empty() { format!("exit code {code}") } else { names.join(", ") }
}

/// As one word of the shell.
fn quoted(word: impl AsRef<OsStr>) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::process::Command;

    use super::*;

    fn program(target: &str, path: &str, folder: &str) -> TestProgram {
        TestProgram {
            package: "p".into(),
            target: target.into(),
            path: PathBuf::from(path),
            folder: PathBuf::from(folder),
            is_integration_test: true,
        }
    }

    #[test]
    fn script_runs_all_programs_in_their_folders_and_names_those_that_failed() {
        let workspace = Workspace::with_tools(Path::new("/a folder"));
        let programs = [program("bad", "/bin/sh", "/usr"), program("good", "/bin/sh", "/usr/bin")];
        let command = "echo $SPIDERPOOL_TOOLS; pwd; echo \"it's\"; test $PWD = /usr/bin";
        let script = of(&workspace, &programs, Extent::Whole, &["-c", command]);
        let output = Command::new("bash").arg("-c").arg(script).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("Running bad of p\n/a folder\n/usr\nit's\nbad of p: failed, "), "{stdout}");
        assert!(stdout.contains("good of p: ok, "), "{stdout}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(failed(1, &output.stderr), "bad of p");
    }
}
