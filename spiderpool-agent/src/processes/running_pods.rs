//! Which pods have live processes.

use std::collections::BTreeSet;
use std::path::Path;
use std::{fs, io};

use nix::errno::Errno;
use spiderpool_core::names::PodUid;

use super::{cgroup, folders};

/// Those of `pods` that have one; a sandbox without containers has its pause container's. Blocks. Fails rather than to leave
/// a pod out.
pub(crate) fn running_pods(pods: &BTreeSet<PodUid>) -> io::Result<BTreeSet<PodUid>> {
    let mut running = BTreeSet::new();
    for process in folders()? {
        let Some(uid) = read(&process, "cgroup")?.as_deref().and_then(cgroup::pod_uid) else { continue };
        if pods.contains(&uid) && !running.contains(&uid) && is_alive(&process)? {
            running.insert(uid);
        }
    }
    Ok(running)
}

fn is_alive(process: &Path) -> io::Result<bool> {
    Ok(read(process, "stat")?.is_some_and(|stat| !has_ended(&stat)))
}

/// By the state in `/proc/PID/stat` (proc_pid_stat(5)): zombies wait for their parent alone.
fn has_ended(stat: &str) -> bool {
    // A program's name may have parentheses and blanks.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, Some('Z' | 'X' | 'x'))
}

/// A file of a process; `None` if the process has ended.
fn read(process: &Path, file: &str) -> io::Result<Option<String>> {
    match fs::read(process.join(file)) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn zombies_have_ended() {
        for (stat, expected) in [
            ("7 (sleep) S 1 7 7 0 -1", false),
            ("7 (pause) R 1", false),
            ("7 (a) Z b) D 1", false),
            ("7 (sleep) Z 1 7 7 0 -1", true),
            ("7 (a) R) X 1", true),
        ] {
            assert_eq!(has_ended(stat), expected, "{stat}");
        }
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_is_a_zombie() {
        let mut child = Command::new("true").spawn().unwrap();
        let folder = Path::new("/proc").join(child.id().to_string());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while is_alive(&folder).unwrap() {
            assert!(std::time::Instant::now() < deadline, "it does not end");
            std::thread::yield_now();
        }
        assert!(folder.exists());
        child.wait().unwrap();
        assert!(!is_alive(&folder).unwrap());
        assert!(is_alive(Path::new("/proc/self")).unwrap());
    }

    #[test]
    fn only_pods_that_are_asked_for_are_found() {
        assert_eq!(running_pods(&BTreeSet::new()).unwrap(), BTreeSet::new());
        let unknown = "11111111-2222-3333-4444-555555555555".parse().unwrap();
        assert_eq!(running_pods(&[unknown].into()).unwrap(), BTreeSet::new());
    }
}
