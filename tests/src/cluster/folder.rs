//! A cluster's folder and its cgroup: all there is of it.

use std::env;
use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use spiderpool_testbox::machine::Spec;

use super::options::check_name;
use super::programs::testbox;
use super::{Options, hosts};
use crate::tools;

/// Where the parts of a cluster are.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    name: String,
    path: PathBuf,
    group: PathBuf,
}

impl Folder {
    /// The folder of the cluster of this name, existing or not.
    pub(super) fn of(name: &str) -> Result<Self> {
        check_name(name)?;
        let path = tools::clusters()?.join(name);
        // Another clone of the repository may have one of the same name.
        let hash = Sha256::digest(path.as_os_str().as_encoded_bytes());
        let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let group = PathBuf::from(format!("spiderpool-{name}-{hash:08x}"));
        Ok(Self { name: name.to_owned(), path, group })
    }

    /// The names of all that exist.
    pub(super) fn all() -> Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(tools::clusters()?)?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn create(&self, options: &Options) -> Result<()> {
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&self.path)
            .with_context(|| self.path.display().to_string())?;
        self.write_options(options)
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The cgroup directory in every hierarchy.
    pub(super) fn group(&self) -> &Path {
        &self.group
    }

    pub(super) fn pki(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// A machine's folder.
    pub(super) fn machine(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// What a machine of this cluster is made from.
    pub(super) fn spec(&self, name: &str, volumes: &[&str]) -> Result<Spec> {
        let own = testbox()?.parent().map(Path::to_owned).context("testbox is in no folder")?;
        let shared = [self.path.clone(), tools::folder_of_programs()?, own];
        Ok(Spec {
            name: name.to_owned(),
            group: self.group.join(name),
            folder: self.machine(name),
            shared: shared.to_vec(),
            volumes: volumes.iter().map(PathBuf::from).collect(),
            hosts: hosts::file(),
        })
    }

    fn options_file(&self) -> PathBuf {
        self.path.join("cluster.json")
    }

    pub(super) fn write_options(&self, options: &Options) -> Result<()> {
        Ok(fs::write(self.options_file(), serde_json::to_vec_pretty(options)?)?)
    }

    pub(super) fn options(&self) -> Result<Options> {
        let all = || Self::all().unwrap_or_default().join(", ");
        ensure!(
            self.path.exists(),
            "there is no cluster {}; start it with `cargo xtask cluster up --name {}`. There are: {}",
            self.name,
            self.name,
            all()
        );
        let text = fs::read(self.options_file()).with_context(|| {
            format!("cluster {} did not come up: `cargo xtask cluster down --name {}`", self.name, self.name)
        })?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// The numbers of the nodes.
    pub(super) fn nodes(&self) -> Result<Vec<u8>> {
        let mut found: Vec<u8> = fs::read_dir(&self.path)?
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node")?.parse().ok())
            .collect();
        found.sort_unstable();
        Ok(found)
    }
}

/// Removes the cluster when this process ends.
#[derive(Debug)]
pub(super) struct Janitor(Child);

impl Janitor {
    pub(super) fn start(folder: &Folder) -> Result<Self> {
        let program = env::current_exe()?;
        let program = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Neither cargo's hash nor the process id, so that the next run replaces the logs.
        let plain = program.rsplit_once('-').map_or(program.as_str(), |(plain, _)| plain);
        let number = folder.name.rsplit('-').next().unwrap_or_default();
        let child = Command::new(testbox()?)
            .arg("janitor")
            .args([folder.group(), folder.path()])
            .arg(tools::kept_logs().join(format!("{plain}-cluster-{number}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .context("start the janitor of the cluster")?;
        Ok(Self(child))
    }

    /// Waits until it has removed everything.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let status = self.0.wait()?;
        ensure!(status.success(), "the cluster could not be removed: {status}, see above");
        Ok(())
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", ".", "..", "/", "a/b", "../..", "/home/somebody"] {
            assert!(Folder::of(name).is_err(), "{name:?} would be removed by `down`");
        }
    }
}
