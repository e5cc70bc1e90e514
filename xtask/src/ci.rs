//! `ci`: what a change has to pass.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{lint, test, workspace::Workspace};

/// How much the target directory may hold when a run begins.
const LIMIT: u64 = 30 << 30;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    make_room(workspace)?;
    lint::run(workspace)?;
    test::test(workspace, None, &[])
}

/// A directory that outlives its runs grows with each of them, and cargo does not tell what is old.
fn make_room(workspace: &Workspace) -> Result<()> {
    let target = workspace.target();
    if size(target) > LIMIT {
        // What is in `tools` is neither cargo's nor outdated.
        for name in ["debug", "release", "static", "ebpf"] {
            let path = target.join(name);
            println!("removed, for its size: {}", workspace.shown(&path).display());
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| path.display().to_string());
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What a folder takes of the disk; entries that go meanwhile do not count.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_size_of_all_in_it() {
        let folder = std::env::temp_dir().join(format!("xtask-size-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", folder.join("a/root")).unwrap();
        let found = size(&folder);
        fs::remove_dir_all(&folder).unwrap();
        assert!((100_000..200_000).contains(&found), "{found}");
    }
}
