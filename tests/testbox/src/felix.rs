//! `testbox felix`: a stand-in for Calico's Felix on a node. Deletes every route on `cali*` that is not the
//! endpoint's own, at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::IpAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::plugin::ENDPOINTS;
use crate::{calico, command};

/// Watches until ip(8) ends, which it does not by itself.
pub fn run() -> Result<()> {
    let mut monitor = Command::new("ip")
        .args(["-o", "monitor", "route"])
        .stdout(Stdio::piped())
        .spawn()
        .context("ip monitor")?;
    let output = monitor.stdout.take().context("no standard output")?;
    for line in BufReader::new(output).lines() {
        enforce(&line?);
    }
    bail!("ip monitor ended: {}", monitor.wait()?)
}

fn enforce(line: &str) {
    let Some((prefix, device)) = calico::foreign_route(line) else { return };
    let endpoint = fs::read_to_string(Path::new(ENDPOINTS).join(device)).unwrap_or_default();
    let endpoint: Vec<IpAddr> = endpoint.lines().filter_map(|line| line.parse().ok()).collect();
    if calico::is_own(prefix, &endpoint) {
        return;
    }
    let family = calico::family_option(line);
    // It may have gone with its device meanwhile.
    let deleted =
        command::output(Command::new("ip").args([family, "route", "del", prefix, "dev", device]), "");
    println!("deleted {line}: {}", deleted.is_ok());
}
