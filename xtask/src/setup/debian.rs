//! Debian's packages, unpacked into a folder without being installed: what stands beside the distribution's own, or would
//! replace it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::packages;
use crate::process;

/// Without these options `apt-cache depends` also follows what is not needed to run a package.
const DEPENDS_ALONE: [&str; 7] = [
    "--no-recommends",
    "--no-suggests",
    "--no-conflicts",
    "--no-breaks",
    "--no-replaces",
    "--no-enhances",
    "--recurse",
];

/// Where packages come from.
pub(super) enum Archive {
    /// What this machine is configured to use.
    Configured,
    /// A suite of the security archive, from the same mirror, with lists of its own in this folder.
    Security { lists: PathBuf },
}

impl Archive {
    /// Reads what the security archive has in `suite` now, into `folder`.
    pub(super) fn security(suite: &str, folder: &Path) -> Result<Self> {
        let targets = process::output(apt("apt-get").args([
            "indextargets",
            "--format",
            "$(REPO_URI) $(CODENAME)",
            "Created-By: Packages",
        ]));
        let mirror = targets.as_deref().and_then(security_mirror).context(
            "apt knows no security archive of Debian, from which other kernels come: this needs a Debian machine",
        )?;
        let lists = folder.join("lists");
        fs::create_dir_all(lists.join("partial"))
            .with_context(|| format!("cannot create {}", lists.display()))?;
        let source = format!("deb [arch=amd64] {mirror} {suite} main\n");
        fs::write(lists.with_extension("list"), source)?;
        let archive = Self::Security { lists };
        process::step(&format!("apt-get update for {suite}"), archive.apt("apt-get").arg("update"))?;
        Ok(archive)
    }

    /// Reads what the configured archives have now.
    pub(super) fn configured() -> Result<Self> {
        process::step("apt-get update", packages::apt_get().args(["-q", "update"]))?;
        Ok(Self::Configured)
    }

    fn apt(&self, program: &str) -> Command {
        let mut apt = apt(program);
        if let Self::Security { lists } = self {
            apt.arg(format!("-oDir::State::Lists={}", lists.display()))
                .arg(format!("-oDir::Etc::SourceList={}", lists.with_extension("list").display()))
                .args([
                    "-oDir::Etc::SourceParts=/dev/null",
                    "-oDir::Cache::pkgcache=",
                    "-oDir::Cache::srcpkgcache=",
                ]);
        }
        apt
    }

    /// The packages that `package` depends on directly.
    pub(super) fn depends(&self, package: &str) -> Result<Vec<String>> {
        let mut apt = self.apt("apt-cache");
        let answer = process::output(apt.args(["depends", package]))
            .with_context(|| format!("`{}` failed", process::typed(&apt)))?;
        let names = answer.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        Ok(names.map(str::to_owned).collect())
    }

    /// `packages` and all that they need and this machine lacks.
    pub(super) fn missing(&self, packages: &[&str]) -> Result<Vec<String>> {
        let mut apt = self.apt("apt-cache");
        let answer = process::output(apt.arg("depends").args(DEPENDS_ALONE).args(packages))
            .with_context(|| format!("`{}` failed", process::typed(&apt)))?;
        let installed = process::output(process::command("dpkg-query").args([
            "-W",
            "-f",
            "${db:Status-Abbrev} ${Package}\n",
        ]))
        .context("cannot ask dpkg-query which packages are installed")?;
        Ok(not_installed(&answer, &installed, packages))
    }

    /// Downloads `packages` and unpacks them into `folder`.
    pub(super) fn unpack(&self, packages: &[String], folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let downloaded = tempfile::tempdir_in(folder)?;
        let mut download = self.apt("apt-get");
        download.arg("download").args(packages).current_dir(downloaded.path());
        process::step(&what(packages), &mut download)?;
        let mut count = 0;
        for entry in fs::read_dir(downloaded.path())? {
            let package = entry?.path();
            let mut unpack = process::command("dpkg-deb");
            let output = unpack.arg("-x").arg(&package).arg(folder).output()?;
            if !output.status.success() {
                bail!(
                    "`{}`: {}",
                    process::typed(&unpack),
                    String::from_utf8_lossy(&output.stderr).trim_end()
                );
            }
            count += 1;
        }
        ensure!(count == packages.len(), "{count} packages came of {}", packages.join(" "));
        Ok(())
    }
}

fn apt(program: &str) -> Command {
    let mut apt = process::command(program);
    apt.env("LC_ALL", "C");
    apt
}

fn what(packages: &[String]) -> String {
    match packages {
        [package] => format!("apt-get download {package}"),
        packages => format!("apt-get download of {} packages", packages.len()),
    }
}

/// The address of the security archive, from lines of an address and a suite.
fn security_mirror(targets: &str) -> Option<&str> {
    let mut lines = targets.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(address, suite)| suite.ends_with("-security") && address.contains("debian"))
        .map(|found| found.0)
}

/// Names in the answer of `apt-cache depends` that are not among the installed ones, and those `wanted` in any case.
fn not_installed(depends: &str, installed: &str, wanted: &[&str]) -> Vec<String> {
    let installed: BTreeSet<_> =
        installed.lines().filter_map(|line| line.strip_prefix("ii ")).map(str::trim).collect();
    // Dependencies are indented; a name in angle brackets is a virtual package.
    let names = depends.lines().filter(|line| !line.starts_with([' ', '<', '|'])).map(str::trim);
    let names: BTreeSet<_> =
        names.filter(|name| wanted.contains(name) || !installed.contains(name)).collect();
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirror_is_that_of_the_security_archive() {
        let targets =
            "http://a.example/debian/ bookworm\nhttp://b.example/debian-security/ bookworm-security\n";
        assert_eq!(security_mirror(targets), Some("http://b.example/debian-security/"));
        assert_eq!(
            security_mirror("http://a.example/ubuntu/ noble\nhttp://a.example/ubuntu/ noble-security"),
            None
        );
    }

    #[test]
    fn what_is_installed_is_downloaded_only_if_it_is_wanted_itself() {
        let depends =
            "qemu\n  Depends: libc6\n |Depends: libfoo\n    <virtual>\nlibc6\nlibfoo\n<virtual>\nbusybox\n";
        let installed = "ii  libc6\nii  busybox\nrc  libfoo\n";
        assert_eq!(not_installed(depends, installed, &["qemu", "busybox"]), ["busybox", "libfoo", "qemu"]);
    }
}
