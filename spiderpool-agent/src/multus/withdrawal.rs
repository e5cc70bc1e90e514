//! When Multus' configuration was taken from the node: pods that are younger were not made by it.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use super::kubeconfig;

/// Its time of modification is when the configuration was withdrawn. Only root makes files there.
pub(super) const FILE: &str = "multus.d/spiderpool.withdrawn";

/// It is withdrawn now. Only where there is anything for which the time matters.
pub(super) fn record(conf_dir: &Path) -> io::Result<()> {
    if !kubeconfig::is_there(conf_dir) {
        return Ok(());
    }
    File::create(conf_dir.join(FILE))?.set_modified(SystemTime::now())
}

/// Whether the time is known.
pub(super) fn is_recorded(conf_dir: &Path) -> bool {
    conf_dir.join(FILE).exists()
}

/// Multus is configured again.
pub(super) fn forget(conf_dir: &Path) -> io::Result<()> {
    match fs::remove_file(conf_dir.join(FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Since when Multus makes no pods, which is when its configuration was withdrawn; now, if that is not known.
pub(crate) fn withdrawn_at(conf_dir: &Path) -> SystemTime {
    let recorded = || fs::metadata(conf_dir.join(FILE))?.modified();
    recorded().unwrap_or_else(|_: io::Error| SystemTime::now())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::removal::{remove_rest, withdraw};
    use super::*;

    /// By hand, or by another installer: the kubeconfig is as old as its token.
    #[test]
    fn a_configuration_that_somebody_else_has_removed_was_withdrawn_when_that_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("multus.d")).unwrap();
        let path = dir.path().join(kubeconfig::FILE);
        fs::write(&path, r#"{"current-context":"spiderpool-multus"}"#).unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        let before = SystemTime::now() - Duration::from_mins(1);
        assert!(!withdraw(dir.path()).unwrap());
        let recorded = withdrawn_at(dir.path());
        assert!(recorded > before);
        assert!(!withdraw(dir.path()).unwrap());
        assert_eq!(withdrawn_at(dir.path()), recorded);
        assert_eq!(remove_rest(dir.path(), dir.path()), Vec::<String>::new());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(!withdraw(dir.path()).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is recorded where nothing is left");
    }
}
