use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::unistd::mkfifo;

use super::*;

const MEBIBYTE: usize = 1 << 20;
const LIMITS: Limits = Limits { size: MEBIBYTE as u64, age: None, count: 2 };

fn open_below(root: &Path, path: &str) -> io::Result<File> {
    open(root, Path::new(path), &LIMITS)
}

#[test]
fn a_large_file_is_renamed_and_old_ones_deleted() {
    let root = tempfile::tempdir().unwrap();
    let deep = root.path().join("deep").join("er");
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("spiderpool-notes.log"), "not ours to delete").unwrap();
    for round in 0..5u8 {
        let mut file = open_below(root.path(), "deep/er/spiderpool.log").unwrap();
        assert_eq!(file.metadata().unwrap().len(), 0, "round {round} begins a new file");
        file.write_all(&vec![b'x'; MEBIBYTE]).unwrap();
        // Renamed files differ in their time.
        let name = OsStr::new("spiderpool.log");
        let old = renamed(name);
        while renamed(name) == old {}
    }
    let mut names: Vec<_> = fs::read_dir(deep).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names.len(), 4, "the file, two old ones, one of somebody else: {names:?}");
}

#[test]
fn a_small_file_is_continued_and_its_folders_are_made() {
    let root = tempfile::tempdir().unwrap();
    open_below(root.path(), "a/./b/coordinator.log").unwrap().write_all(b"one\n").unwrap();
    open_below(root.path(), "a/b/coordinator.log").unwrap().write_all(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(root.path().join("a/b/coordinator.log")).unwrap(), "one\ntwo\n");
}

#[test]
fn a_log_path_leads_nowhere_else_by_links_or_dots() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = outside.path().join("target");
    fs::write(&target, "").unwrap();
    symlink(outside.path(), root.path().join("folder")).unwrap();
    symlink(&target, root.path().join("file.log")).unwrap();
    symlink(outside.path().join("made"), root.path().join("dangling.log")).unwrap();
    for path in
        ["folder/target", "folder/new/x.log", "file.log", "dangling.log", "../x.log", "a/../../x", "/x", ""]
    {
        assert!(open_below(root.path(), path).is_err(), "{path}");
    }
    let found: Vec<PathBuf> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(found, [target]);
}

/// Opening one for writing waits until somebody reads it: with that, a DEL would never end.
#[test]
fn a_fifo_or_a_folder_is_no_log_and_does_not_block() {
    let root = tempfile::tempdir().unwrap();
    let fifo = root.path().join("fifo.log");
    mkfifo(&fifo, Mode::from_bits_truncate(0o600)).unwrap();
    assert!(open_below(root.path(), "fifo.log").is_err(), "without a reader");
    let reader = open_path(&fifo, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap();
    let error = open_below(root.path(), "fifo.log").unwrap_err();
    assert_eq!(error.to_string(), "not a regular file");
    drop(reader);
    fs::create_dir(root.path().join("folder.log")).unwrap();
    assert!(open_below(root.path(), "folder.log").is_err());
    assert!(open(Path::new("/dev"), Path::new("null"), &LIMITS).is_err(), "a device");
}
