//! The one program of the library beside it. See [`usage`] for what it does under which name.
#![forbid(unsafe_code)]

use std::env;
use std::net::Ipv6Addr;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use anyhow::{Context as _, Result, bail};
use spiderpool_testbox::probe::{Listener, Probe, Protocol, send};
use spiderpool_testbox::{cleanup, enter, felix, init, install_cni, machine, plugin};

fn main() -> ExitCode {
    let mut words = env::args();
    let program = words.next().unwrap_or_default();
    let name = Path::new(&program).file_name().unwrap_or_default().to_string_lossy();
    if let Some(kind) = plugin::Kind::of_program(&name) {
        return if plugin::run(kind) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let words: Vec<String> = words.collect();
    match run(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("testbox {}: {error:#}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

fn usage() -> &'static str {
    "testbox start FOLDER | init FOLDER | enter PROCESS -- COMMAND.. | janitor GROUP FOLDER LOGS
testbox felix
testbox install-cni
testbox pause
testbox serve [NAME]
testbox tcp|udp|ping ADDRESS [FROM]
as calico-like, calico or cilium-like: a CNI plugin"
}

fn run(words: &[String]) -> Result<ExitCode> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["start", folder] => machine::start(Path::new(folder))?,
        ["init", folder] => init::run(Path::new(folder))?,
        ["enter", process, "--", command @ ..] => {
            let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
            let process = process.parse().context("no process id")?;
            return Ok(ExitCode::from(enter::run(process, &command)?));
        }
        ["janitor", group, folder, logs] => {
            cleanup::janitor(Path::new(group), Path::new(folder), Path::new(logs))?;
        }
        ["felix"] => felix::run()?,
        ["install-cni"] => install_cni::run()?,
        ["pause"] => loop {
            thread::park();
        },
        ["serve", name @ ..] => {
            // In a pod that is its name.
            let own = nix::unistd::gethostname()?.to_string_lossy().into_owned();
            let name = name.first().map_or(own, |name| (*name).to_owned());
            Listener::bind(&[Ipv6Addr::UNSPECIFIED.into()])?.serve(&name, None)?;
        }
        [protocol, to, from @ ..] if Protocol::from_name(protocol).is_some() => {
            let protocol = Protocol::from_name(protocol).context("unknown protocol")?;
            let bound = from.first().map(|from| from.parse()).transpose()?;
            let answer = send(Probe { protocol, to: to.parse()?, bound })?;
            println!("{}", serde_json::to_string(&answer)?);
        }
        _ => bail!("that is no way to call it:\n{}", usage()),
    }
    Ok(ExitCode::SUCCESS)
}
