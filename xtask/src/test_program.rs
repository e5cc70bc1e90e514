//! The test programs that cargo builds.

use std::{path::PathBuf, process::Command};

use anyhow::Result;
use cargo_metadata::{Artifact, TargetKind};

use crate::{artifacts, process, workspace::Workspace};

/// What cargo has built of one target's tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TestProgram {
    /// The folder of the package.
    pub(crate) package: String,
    pub(crate) target: String,
    pub(crate) path: PathBuf,
    /// Where cargo runs it.
    pub(crate) folder: PathBuf,
    pub(crate) is_integration_test: bool,
}

impl TestProgram {
    /// Builds the tests that these arguments of `cargo test` choose.
    pub(crate) fn build(workspace: &Workspace, which: &[&str]) -> Result<Vec<Self>> {
        let mut cargo = process::cargo(workspace);
        cargo.args(["test", "--no-run"]).args(which);
        Ok(artifacts::built(&mut cargo)?.into_iter().filter_map(Self::of).collect())
    }

    fn of(artifact: Artifact) -> Option<Self> {
        let path = artifact.executable.filter(|_| artifact.profile.test)?.into_std_path_buf();
        let folder = artifact.manifest_path.parent()?;
        Some(Self {
            package: folder.file_name()?.to_owned(),
            target: artifact.target.name,
            path,
            folder: folder.as_std_path().to_owned(),
            is_integration_test: artifact.target.kind.contains(&TargetKind::Test),
        })
    }

    /// As cargo starts it.
    pub(crate) fn command(&self) -> Command {
        let mut command = process::command(&self.path);
        command.current_dir(&self.folder).env("CARGO_MANIFEST_DIR", &self.folder);
        command
    }
}
