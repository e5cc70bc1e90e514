//! `ci`: what a change has to pass.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::{lint, test, workspace::Workspace};

/// What cargo builds into. It grows with each run that it outlives, and cargo does not tell what is old.
const BUILT: [&str; 4] = ["debug", "release", "static", "ebpf"];
/// How much of that there may be when a run begins.
const LIMIT: u64 = 30 << 30;

pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    make_room(workspace)?;
    lint::run(workspace)?;
    test::run(workspace, &test::Options::default())
}

fn make_room(workspace: &Workspace) -> Result<()> {
    let built = BUILT.map(|name| workspace.target().join(name));
    if built.iter().map(|folder| size(folder)).sum::<u64>() > LIMIT {
        for folder in built.iter().filter(|folder| folder.exists()) {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
            println!("removed, for its size: {}", workspace.shown(folder).display());
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
