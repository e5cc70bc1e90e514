//! Stamps: what was installed from which inputs, so that a second run only
//! compares. A stamp counts only while its file exists.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::workspace::Workspace;

/// The record of one installed program.
pub(super) struct Stamp {
    path: PathBuf,
    program: PathBuf,
    wanted: String,
}

impl Stamp {
    /// The stamp of `program`, which is right when it was made from `wanted`.
    pub(super) fn new(workspace: &Workspace, program: &Path, wanted: String) -> Self {
        let name = program.file_name().unwrap_or_default();
        Self { path: workspace.tools().join("stamps").join(name), program: program.to_owned(), wanted }
    }

    /// How the program was had, if it is there and nothing changed since.
    pub(super) fn origin(&self) -> Option<String> {
        let text = fs::read_to_string(&self.path).ok()?;
        let (wanted, origin) = text.split_once('\n')?;
        (wanted == self.wanted && self.program.exists()).then(|| origin.trim_end().to_owned())
    }

    /// Records that the program is there now.
    pub(super) fn write(&self, origin: &str) -> Result<()> {
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        fs::write(&self.path, format!("{}\n{origin}\n", self.wanted))
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}

/// A short digest of inputs, good enough to see that they changed.
pub(super) fn digest(inputs: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_counts_only_with_the_same_inputs_and_an_existing_program() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("etcd");
        let workspace = Workspace::with_tools(folder.path());
        let stamp = Stamp::new(&workspace, &program, digest(&["v1"]));
        assert_eq!(stamp.origin(), None, "nothing installed yet");

        fs::write(&program, "").unwrap();
        stamp.write("built").unwrap();
        assert_eq!(stamp.origin().as_deref(), Some("built"));
        assert_eq!(Stamp::new(&workspace, &program, digest(&["v2"])).origin(), None, "inputs changed");

        fs::remove_file(&program).unwrap();
        assert_eq!(stamp.origin(), None, "program removed");
    }
}
