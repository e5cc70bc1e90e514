//! The node's directory for CNI configuration: reads what is there, applies what core has planned.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use spiderpool_core::multus_conf::{
    ConfFile, FILE, RENAMED_BY_CILIUM, Settings, is_ours, is_relevant, plan_multus_conf,
};

use super::claims::Claims;
use super::error::{DirError, failed};
use super::kubeconfig::{self, Access};
use super::withdrawal;
use crate::atomic_file;
use crate::node::HostFolder;

/// A configuration of more than that is none.
const MAX_LENGTH: u64 = 1 << 20;

/// What a pass did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    /// Everything is as it must be.
    Nothing,
    /// Multus' configuration, with the default network of this file.
    Conf {
        /// The file; absent if a NetworkAttachmentDefinition is the default network.
        default_file: Option<String>,
        /// A file that the runtime takes instead.
        preceded_by: Option<String>,
    },
    /// The configuration that this agent has written was gone or changed.
    Again,
    /// The same, by Cilium.
    RenamedByCilium,
}

/// Where Multus' program must be before the runtime is told to execute it.
pub(super) struct Program {
    /// Where the node's own folders are mounted.
    pub(super) host: PathBuf,
    /// The node's folder for plugins, as the node names it.
    pub(super) folder: PathBuf,
}

impl Program {
    fn check(&self) -> Result<(), DirError> {
        let folder = HostFolder::open(&self.host, &self.folder).map_err(failed(&self.folder))?;
        // A link may lead to somewhere on the node that this container does not see.
        let is_there = fs::symlink_metadata(folder.path().join("multus")).is_ok();
        if is_there { Ok(()) } else { Err(DirError::NoProgram(self.folder.join("multus"))) }
    }
}

/// The directory, and what was written last.
pub(super) struct ConfDir {
    dir: PathBuf,
    settings: Settings,
    /// The service account, as the subject of its tokens.
    account: String,
    program: Option<Program>,
    last: Option<String>,
}

impl ConfDir {
    pub(super) fn new(dir: PathBuf, settings: Settings, account: String, program: Option<Program>) -> Self {
        Self { dir, settings, account, program, last: None }
    }

    /// The kubeconfig of an earlier Spiderpool, as the node names it: it has a token of this very service account.
    fn predecessor(&self) -> Option<String> {
        let content = fs::read_to_string(self.dir.join(kubeconfig::UPSTREAMS)).ok()?;
        let is_its =
            kubeconfig::tokens(&content).any(|token| Claims::of(token).subject() == Some(&self.account));
        is_its.then(|| format!("{}/{}", self.settings.conf_dir.trim_end_matches('/'), kubeconfig::UPSTREAMS))
    }

    /// One pass. `access` is absent if there is no token: what is there of an earlier agent may still be good.
    pub(super) fn run(&mut self, access: Option<&Access>) -> Result<Written, DirError> {
        let files = read(&self.dir)?;
        let planned = plan_multus_conf(&files, &self.settings, self.predecessor().as_deref())?;
        self.program.as_ref().map_or(Ok(()), Program::check)?;
        let kubeconfig = self.dir.join(kubeconfig::FILE);
        match access {
            Some(access) => access.write(&kubeconfig)?,
            None if kubeconfig.exists() => {}
            None => return Err(DirError::NoAccess),
        }
        let renamed = files.iter().any(|file| file.name == RENAMED_BY_CILIUM && is_ours(&file.content));
        let there = files.iter().find(|file| file.name == FILE).map(|file| &file.content);
        let is_lost = self.last.as_ref().is_some_and(|last| there != Some(last));
        let outcome = if there == Some(&planned.content) {
            Written::Nothing
        } else {
            let path = self.dir.join(FILE);
            withdrawal::forget(&self.dir).map_err(failed(&path))?;
            atomic_file::write(&path, planned.content.as_bytes(), 0o600).map_err(failed(&path))?;
            match (renamed, is_lost) {
                (true, _) => Written::RenamedByCilium,
                (false, true) => Written::Again,
                (false, false) => {
                    Written::Conf { default_file: planned.default_file, preceded_by: planned.preceded_by }
                }
            }
        };
        if renamed {
            let path = self.dir.join(RENAMED_BY_CILIUM);
            remove(&path).map_err(failed(&path))?;
        }
        self.last = Some(planned.content);
        Ok(outcome)
    }
}

/// All that a container runtime may read there, and what Cilium has renamed.
pub(super) fn read(dir: &Path) -> Result<Vec<ConfFile>, DirError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).filter(|name| is_relevant(name));
        let Some(name) = name.map(str::to_owned) else { continue };
        // A file may vanish meanwhile; links are followed, as the runtime does.
        let Ok(found) = fs::metadata(&path) else { continue };
        if !found.is_file() || found.len() > MAX_LENGTH {
            continue;
        }
        let Ok(content) = fs::read(&path) else { continue };
        files.push(ConfFile { name, content: String::from_utf8_lossy(&content).into_owned() });
    }
    Ok(files)
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
