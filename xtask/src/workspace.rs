//! Where things are: the repository, the target directory and what the verbs
//! put into it. Knows paths only; builds and installs nothing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::architecture::Architecture;

/// The repository and its target directory, both absolute.
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
    tools: PathBuf,
    architecture: Architecture,
}

impl Workspace {
    /// Finds the repository that this xtask belongs to.
    ///
    /// `CARGO_TARGET_DIR` moves what is built, `SPIDERPOOL_TOOLS` what `setup` installs.
    pub(crate) fn find() -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().context("the folder xtask has no parent")?.to_path_buf();
        let absolute = |name: &str| -> Result<Option<PathBuf>> {
            let Some(path) = env::var_os(name).filter(|path| !path.is_empty()) else { return Ok(None) };
            std::path::absolute(&path).map(Some).with_context(|| format!("{name} is not a usable path"))
        };
        let target = absolute("CARGO_TARGET_DIR")?.unwrap_or_else(|| root.join("target"));
        let tools = absolute("SPIDERPOOL_TOOLS")?.unwrap_or_else(|| target.join("tools"));
        Ok(Self { root, target, tools, architecture: Architecture::HOST })
    }

    /// A workspace for tests that only concern the tools.
    #[cfg(test)]
    pub(crate) fn with_tools(tools: &Path) -> Self {
        Self {
            root: tools.to_owned(),
            target: tools.to_owned(),
            tools: tools.to_owned(),
            architecture: Architecture::HOST,
        }
    }

    /// The same sources, with programs for `architecture`; those that are not for this machine have folders of their own.
    pub(crate) fn of(&self, architecture: Architecture) -> Self {
        let tools = &self.tools;
        let tools =
            if architecture == self.architecture { tools.clone() } else { tools.join(architecture.name()) };
        Self { root: self.root.clone(), target: self.target.clone(), tools, architecture }
    }

    /// What programs of images are built for.
    pub(crate) fn architecture(&self) -> Architecture {
        self.architecture
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Cargo's target directory.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// What `setup` installs: `bin/`, `cni/` and its stamps.
    pub(crate) fn tools(&self) -> &Path {
        &self.tools
    }

    /// The agent and the CNI plugins that `build` makes.
    pub(crate) fn bin(&self) -> PathBuf {
        match self.architecture {
            Architecture::HOST => self.target.join("bin"),
            other => self.target.join("bin").join(other.name()),
        }
    }

    /// The object file with the eBPF programs.
    pub(crate) fn bpf_object(&self) -> PathBuf {
        self.target.join("bpf/spiderpool.o")
    }

    /// Tells a program that runs what was built where to find it.
    pub(crate) fn export(&self, command: &mut Command) {
        command
            .env("SPIDERPOOL_TOOLS", self.tools())
            .env("SPIDERPOOL_BIN", self.bin())
            .env("SPIDERPOOL_BPF_OBJECT", self.bpf_object());
    }

    /// `path` as one types it from the top of the repository.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}
