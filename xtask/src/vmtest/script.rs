//! The script that runs test programs in a guest.

use std::{env, ffi::OsStr, fmt::Write as _};

use crate::{test_program::TestProgram, workspace::Workspace};

/// What tests read that whoever starts them may set.
const PASSED_ON: [&str; 3] = ["CI", "RUST_BACKTRACE", "PROPTEST_CASES"];

/// Runs a program, its streams as one; whoever reads standard error learns what has failed.
const RUN: &str = r#"
failed=0
run() {
    name=$1 folder=$2
    shift 2
    cd "$folder"
    echo "     Running $name"
    start=$(date +%s)
    if "$@" 2>&1; then result=ok; else result=failed failed=1; echo "$name" >&2; fi
    echo "$name: $result, $(($(date +%s) - start)) s"
}
"#;

/// One line per program.
#[derive(Default)]
pub(super) struct Script {
    runs: String,
}

impl Script {
    /// Runs `program` too, with these arguments.
    pub(super) fn add(&mut self, workspace: &Workspace, program: &TestProgram, arguments: &[&str]) {
        let mut command = program.command();
        workspace.export(&mut command);
        let name = format!("{} of {}", program.target, program.package);
        let mut words = vec!["run".to_owned(), quoted(&name), quoted(&program.folder), "env".to_owned()];
        let set = command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
        let passed_on = PASSED_ON.iter().filter_map(|name| Some(((*name).into(), env::var_os(name)?)));
        for (name, value) in set.chain(passed_on) {
            words.push(format!("{}={}", name.to_string_lossy(), quoted(value)));
        }
        words.push(quoted(&program.path));
        words.extend(arguments.iter().map(quoted));
        // A String takes all that is written to it.
        let _infallible = writeln!(self.runs, "{}", words.join(" "));
    }

    pub(super) fn text(&self) -> String {
        format!("{RUN}{}exit $failed\n", self.runs)
    }
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

    fn program(target: &str, path: &str) -> TestProgram {
        TestProgram {
            package: "p".into(),
            target: target.into(),
            path: PathBuf::from(path),
            folder: PathBuf::from("/usr"),
            is_integration_test: true,
        }
    }

    #[test]
    fn script_runs_all_programs_in_their_folders_and_names_those_that_failed() {
        let workspace = Workspace::with_tools(Path::new("/a folder"));
        let mut script = Script::default();
        let shell = ["-c", "echo $SPIDERPOOL_TOOLS; pwd; echo \"it's\"; exit 3"];
        script.add(&workspace, &program("bad", "/bin/sh"), &shell);
        script.add(&workspace, &program("good", "/bin/true"), &[]);
        let output = Command::new("bash").arg("-c").arg(script.text()).output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        assert!(stdout.contains("Running bad of p\n/a folder\n/usr\nit's\nbad of p: failed, "), "{stdout}");
        assert!(stdout.contains("Running good of p\ngood of p: ok, "), "{stdout}");
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(failed(1, &output.stderr), "bad of p");
    }
}
