//! `testbox init FOLDER`: process 1 of a machine.

mod mounts;
mod supervisor;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;

use anyhow::{Context as _, Result};
use nix::unistd::sethostname;

use crate::control::{Request, SOCKET};
use crate::machine::Spec;
use crate::sysctl;
use supervisor::Supervisor;

/// Sets the machine up and then does what its control socket asks for. Ends by SIGKILL from outside only, and everything with it.
pub fn run(folder: &Path) -> Result<()> {
    let spec = Spec::read(folder)?;
    sethostname(&spec.name).context("host name")?;
    mounts::set_up(&spec).context("mounts")?;
    write_identity(&spec)?;
    sysctl::write(sysctl::MACHINE)?;
    let supervisor = Arc::new(Supervisor::default());
    let reaper = Arc::clone(&supervisor);
    thread::spawn(move || reaper.reap());
    let listener = UnixListener::bind(SOCKET).context(SOCKET)?;
    for stream in listener.incoming() {
        let supervisor = Arc::clone(&supervisor);
        thread::spawn(move || {
            if let Err(error) = answer(&supervisor, &stream?) {
                eprintln!("request: {error:#}");
            }
            Ok::<_, std::io::Error>(())
        });
    }
    Ok(())
}

fn write_identity(spec: &Spec) -> Result<()> {
    let id = fs::read_to_string("/proc/sys/kernel/random/uuid")?.replace('-', "");
    fs::write("/etc/machine-id", id)?;
    fs::write("/etc/hostname", format!("{}\n", spec.name))?;
    let hosts = format!("127.0.0.1 localhost\n::1 localhost\n{}", spec.hosts);
    fs::write("/etc/hosts", hosts)?;
    // A symbolic link on many machines.
    drop(fs::remove_file("/etc/resolv.conf"));
    Ok(fs::write("/etc/resolv.conf", "nameserver 10.96.0.10\n")?)
}

fn answer(supervisor: &Arc<Supervisor>, mut stream: &UnixStream) -> Result<()> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    if line.is_empty() {
        return Ok(()); // somebody looked whether we listen
    }
    let request: Request = serde_json::from_str(&line).with_context(|| line.clone())?;
    let done = match request {
        Request::Start(service) => supervisor.start(service),
        Request::Stop(name) => supervisor.stop(&name),
        Request::Kill(name) => supervisor.kill(&name),
        Request::Remove(name) => supervisor.remove(&name),
        Request::Services => Ok(()),
    };
    let answer: crate::control::Answer =
        done.map(|()| supervisor.status()).map_err(|error| format!("{error:#}"));
    Ok(writeln!(stream, "{}", serde_json::to_string(&answer)?)?)
}
