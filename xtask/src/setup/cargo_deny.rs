//! cargo-deny, which checks licences, bans and sources of the dependencies.

use anyhow::Result;

use super::{lookup, lookup::Version, stamp::Stamp};
use crate::{process, workspace::Workspace};

const VERSION: &str = "0.20.2";

/// The program that `lint` runs.
pub(super) fn ensure(workspace: &Workspace) -> Result<String> {
    let program = workspace.tools().join("bin/cargo-deny");
    let stamp = Stamp::new(workspace, &program, VERSION.to_owned());
    if stamp.origin().is_none() {
        let elsewhere = lookup::on_path("cargo-deny").filter(|found| {
            let text = process::output(process::command(found).arg("--version"));
            text.and_then(|text| Version::find(&text)) >= Version::find(VERSION)
        });
        if let Some(elsewhere) = elsewhere {
            std::fs::copy(&elsewhere, &program)?;
        } else {
            let mut install = process::cargo_install(workspace, "cargo-deny", VERSION);
            // A tool that runs for a second: quick to compile counts more than quick to run.
            install.args(["--no-default-features", "--debug"]);
            process::step(&format!("cargo-deny {VERSION} (a few minutes)"), &mut install)?;
        }
        stamp.write("installed")?;
    }
    Ok(VERSION.to_owned())
}
