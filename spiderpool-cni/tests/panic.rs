//! A defect of ours is an error on standard output, never an empty success. The process runs itself as the plugin,
//! so it has no test harness that would print beside it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, also in the functions it calls")]

use std::io::Write;
use std::process::{Command as Process, ExitCode, Stdio};

use serde_json::Value;
use spiderpool_cni::env::{Command, Request};
use spiderpool_cni::error::PluginError;
use spiderpool_cni::log::LogOptions;
use spiderpool_cni::run::{Plugin, run};
use spiderpool_cni::spec::Version;
use spiderpool_core::gc::ValidAttachments;

struct Panicking;

impl Plugin for Panicking {
    type Config = ();
    const NAME: &'static str = "panicking";

    fn parse(_: &[u8], _: Command) -> Result<(), PluginError> {
        Ok(())
    }

    fn log_options((): &()) -> LogOptions {
        LogOptions { path: "nowhere".into(), ..LogOptions::new("panicking") }
    }

    fn network((): &()) -> &'static str {
        "panicking"
    }

    fn status((): &()) -> Result<(), PluginError> {
        Ok(())
    }

    fn add(_: &Request, (): (), _: Version) -> Result<Value, PluginError> {
        panic!("on the main thread");
    }

    fn del(_: &Request, (): ()) -> Result<(), PluginError> {
        // As in another namespace: on a thread of its own.
        std::thread::scope(|scope| scope.spawn(|| panic!("on another thread")).join().ok());
        Ok(())
    }

    fn check(_: &Request, (): ()) -> Result<(), PluginError> {
        Ok(())
    }

    fn gc((): &(), _: ValidAttachments) -> Result<(), PluginError> {
        Ok(())
    }
}

fn main() -> ExitCode {
    if std::env::var_os("CNI_COMMAND").is_some() {
        return run::<Panicking>();
    }
    for (command, text) in [("ADD", "on the main thread"), ("DEL", "on another thread")] {
        let mut child = Process::new(std::env::current_exe().unwrap())
            .envs([
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", "c"),
                ("CNI_NETNS", "/x"),
                ("CNI_IFNAME", "net1"),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(br#"{"cniVersion":"1.0.0"}"#).unwrap();
        let output = child.wait_with_output().unwrap();
        let error: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((output.status.code(), error["code"].as_u64()), (Some(1), Some(199)), "{error}");
        assert_eq!(error["cniVersion"], "1.0.0");
        assert!(error["details"].as_str().unwrap().contains(text), "{error}");
    }
    println!("panics are errors ... ok");
    ExitCode::SUCCESS
}
