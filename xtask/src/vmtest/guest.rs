//! A virtual machine that runs one script as root on another kernel, with this machine's files below a layer in memory.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::net::UnixListener},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::job::{Job, PORTS};
use crate::{
    process,
    setup::{Emulator, Image},
};

/// How often a guest that runs is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// `mitigations=off`: emulated processors cannot be attacked so, and are slow enough. A panic ends the guest at once.
/// `no_timer_check`: an emulated processor that gets no time fails the check of the timer interrupt, and its kernel panics.
const KERNEL_ARGUMENTS: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic rdinit=/init random.trust_cpu=on \
                                mitigations=off net.ifnames=0 no_timer_check";

/// Who executes the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// qemu itself. Needs nothing of the machine.
    Tcg,
    /// The processor. That there is `/dev/kvm` does not say that it can run kernels of distributions.
    Kvm,
}

/// What a guest is given.
#[derive(Clone, Debug)]
pub(crate) struct Guest {
    pub(crate) emulator: Emulator,
    pub(crate) image: Image,
    pub(crate) accelerator: Accelerator,
    pub(crate) cpus: u8,
    /// MiB.
    pub(crate) memory: u32,
    pub(crate) time_limit: Duration,
}

/// How a script ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: u8,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
}

impl Guest {
    /// Runs `script` with bash. `watch` is called with all that it has written to standard output so far, again and again.
    /// An error if it does not come to an end: that has the console's last lines.
    pub(crate) fn run(&self, script: &str, mut watch: impl FnMut(&[u8])) -> Result<Outcome> {
        let job = Job::new(&self.emulator, &self.image, script)?;
        let files = self.serve_files(&job)?;
        let deadline = Instant::now() + self.time_limit;
        let mut qemu = Running::start(self.qemu(&job), &job.path("qemu.log"))?;
        let status = loop {
            let status = qemu.status()?;
            watch(&job.read("stdout"));
            if status.is_some() || Instant::now() >= deadline {
                break status;
            }
            thread::sleep(PAUSE);
        };
        drop((qemu, files));
        let Some(code) = job.code() else { bail!("{}", self.failure(&job, status)) };
        Ok(Outcome { code, stdout: job.read("stdout"), stderr: job.read("stderr") })
    }

    fn failure(&self, job: &Job, status: Option<ExitStatus>) -> String {
        let how = match status {
            None => format!("was not finished after {} s", self.time_limit.as_secs()),
            Some(status) if status.success() => "ended before its script did".to_owned(),
            Some(status) => format!("was not run to its end: qemu ended with {status}"),
        };
        let stderr = job.read("stderr");
        let stderr = String::from_utf8_lossy(&stderr);
        format!(
            "the virtual machine with Linux {} {how}. The last lines of its console:{}\n{}",
            self.image.release,
            job.last_words(),
            stderr.trim_end()
        )
    }

    /// Starts the file server. It gets its socket as standard input, so that there is nothing to wait for.
    fn serve_files(&self, job: &Job) -> Result<Running> {
        let socket = UnixListener::bind(job.path("files.sock"))?;
        let mut server = self.emulator.virtiofsd();
        // `cache=always`: nobody changes files that a guest has seen.
        server.args([
            "--fd=0",
            "-o",
            "source=/",
            "-o",
            "sandbox=chroot",
            "-o",
            "cache=always",
            "-o",
            "log_level=err",
        ]);
        server.arg("--thread-pool-size=0").stdin(OwnedFd::from(socket));
        Running::start(server, &job.path("virtiofsd.log"))
    }

    fn qemu(&self, job: &Job) -> Command {
        let memory = format!("{}M", self.memory);
        let mut qemu = self.emulator.qemu();
        qemu.args(["-machine", "q35", "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none"]);
        match self.accelerator {
            Accelerator::Tcg => qemu.args(["-accel", "tcg", "-cpu", "max"]),
            Accelerator::Kvm => qemu.args(["-accel", "kvm", "-cpu", "host"]),
        };
        qemu.args(["-smp", &self.cpus.to_string(), "-m", &memory]);
        qemu.arg("-kernel").arg(self.image.path()).arg("-initrd").arg(job.path("initramfs"));
        qemu.args(["-append", KERNEL_ARGUMENTS]);
        qemu.args(["-serial", &format!("file:{}", job.path("console").display())]);
        // Files are served out of the guest's memory, which has to be shared for that.
        qemu.args(["-object", &format!("memory-backend-memfd,id=memory,size={memory},share=on")]);
        qemu.args(["-numa", "node,memdev=memory"]);
        qemu.args(["-chardev", &format!("socket,id=files,path={}", job.path("files.sock").display())]);
        qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=host", "-device", "virtio-serial-pci"]);
        for port in PORTS {
            qemu.args(["-chardev", &format!("file,id={port},path={}", job.path(port).display())]);
            qemu.args(["-device", &format!("virtserialport,chardev={port},name={port}")]);
        }
        qemu.stdin(Stdio::null());
        qemu
    }
}

/// A process that ends with this value, and with this program.
struct Running {
    child: Child,
}

impl Running {
    fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = File::create(log)?;
        command.stdout(log.try_clone()?).stderr(log);
        let child =
            command.spawn().with_context(|| format!("cannot start `{}`", process::typed(&command)))?;
        Ok(Self { child })
    }

    fn status(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only where the process has ended.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }
}
