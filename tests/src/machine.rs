//! A machine: network, mount and host name namespaces with a bpffs, a /run and a /sys of its own.
//!
//! A sleeping process holds the namespaces. It dies with this process, and with it everything that was made in them.

use std::fs;
use std::ops::Deref;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use spiderpool_testbox::sysctl;

use crate::namespaces::Namespaces;
use crate::poll;
use crate::process::Process;
use crate::state_dir::StateDir;

const START_LIMIT: Duration = Duration::from_mins(1);

/// A running machine, used as the [`Namespaces`] that it is.
#[derive(Debug)]
pub struct Machine {
    namespaces: Namespaces,
    holder: Process,
}

impl Machine {
    /// Starts a machine; `name` becomes its host name.
    pub fn start(name: &str, state: &StateDir) -> Result<Self> {
        let title = format!("spiderpool-tests-{name}");
        let script = r#"hostname "$1" && exec -a "$2" sleep infinity"#;
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--uts", "--propagation", "private"]);
        command.args(["bash", "-c", script, "bash", name, &title]);
        let mut holder = Process::start(name, &command, &state.log(name))?;
        let process = holder.id();
        poll::until(&format!("namespaces of {name}"), START_LIMIT, || {
            if let Err(ended) = holder.check_running() {
                return Ok(Err(ended));
            }
            let line = fs::read(format!("/proc/{process}/cmdline"))?;
            ensure!(line.starts_with(title.as_bytes()), "not set up yet");
            Ok(Ok(()))
        })??;
        let machine = Self { namespaces: Namespaces::of_process(name, process), holder };
        let logs = state.path().join("logs").join(name);
        fs::create_dir_all(logs.join("spidernet"))?;
        machine.namespaces.run(|| set_up_mounts(&logs)).with_context(|| format!("mounts of {name}"))?;
        machine.sysctl(sysctl::MACHINE)?;
        machine.ip("link set lo up")?;
        Ok(machine)
    }

    /// The process whose death ends the machine.
    pub fn process(&self) -> u32 {
        self.holder.id()
    }
}

impl Deref for Machine {
    type Target = Namespaces;

    fn deref(&self) -> &Namespaces {
        &self.namespaces
    }
}

/// The folders that a node's programs write to, private to the machine. Logs stay readable from outside.
fn set_up_mounts(logs: &Path) -> Result<()> {
    let fresh = |kind: &str, target: &str| {
        mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| target.to_owned())
    };
    fresh("sysfs", "/sys")?;
    fresh("bpf", "/sys/fs/bpf")?;
    fresh("tmpfs", "/run")?;
    fresh("tmpfs", "/var/lib")?;
    for folder in ["/run/netns", "/run/lock", "/run/spidernet", "/var/lib/cni"] {
        fs::create_dir_all(folder)?;
    }
    mount(Some(logs), "/var/log", None::<&str>, MsFlags::MS_BIND, None::<&str>).context("/var/log")?;
    Ok(())
}
