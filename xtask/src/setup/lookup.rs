//! Programs that are already on the machine, and their versions.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Folders of programs for the administrator, which a user's PATH often lacks.
const ADMIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The first program of this name on PATH or among those for the administrator.
pub(super) fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(ADMIN.map(PathBuf::from)).find_map(|folder| in_folder(&folder, name))
}

/// The program of this name in `folder`.
pub(super) fn in_folder(folder: &Path, name: &str) -> Option<PathBuf> {
    let path = folder.join(name);
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
}

/// `major.minor.patch` of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
    patch: u32,
}

impl Version {
    pub(super) const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// The first version in a program's answer to `--version`; what follows the
    /// patch number (`-rc.1`, `+k3s1`) is ignored.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == '"').find_map(Self::parse)
    }

    fn parse(word: &str) -> Option<Self> {
        let word = word.strip_prefix('v').or_else(|| word.strip_prefix("go")).unwrap_or(word);
        let word = word.split(['-', '+', ',']).next()?;
        let mut numbers = word.split('.').map(str::parse::<u32>);
        let major = numbers.next()?.ok()?;
        let minor = numbers.next()?.ok()?;
        let patch = numbers.next().map_or(Some(0), Result::ok)?;
        numbers.next().is_none().then_some(Self { major, minor, patch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_found_in_what_programs_print() {
        let check = |text, expect: Option<(u32, u32, u32)>| {
            let expect = expect.map(|(major, minor, patch)| Version::new(major, minor, patch));
            assert_eq!(Version::find(text), expect, "{text}");
        };
        check("Kubernetes v1.35.4", Some((1, 35, 4)));
        check("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0", Some((1, 32, 4)));
        check("etcd Version: 3.6.16\nGit SHA: abc", Some((3, 6, 16)));
        check("CNI macvlan plugin v1.9.1\nCNI protocol versions supported: 0.1.0", Some((1, 9, 1)));
        check("go version go1.26.8 linux/amd64", Some((1, 26, 8)));
        check("go version go1.26 linux/amd64", Some((1, 26, 0)));
        check("LLVM version: 22.1.8", Some((22, 1, 8)));
        check("CNI macvlan plugin version unknown", None);
    }

    #[test]
    fn folder_and_file_without_execute_permission_are_no_programs() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etcd")).unwrap();
        fs::write(folder.path().join("kubectl"), "").unwrap();
        assert_eq!(in_folder(folder.path(), "etcd"), None);
        assert_eq!(in_folder(folder.path(), "kubectl"), None);
    }
}
