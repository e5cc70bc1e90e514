//! Two builds of everything, compared by labs in turns. A lab takes its binaries from the environment, so each one is a
//! process of this benchmark.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::arguments::DataplaneArguments;
use crate::samples::{Pair, Report, Row, Side};

/// Measures `labs` labs of each build, in turns.
pub(super) fn measure(arguments: &DataplaneArguments, peer: &Path, report: &mut Report) -> Result<()> {
    let mut pairs = BTreeMap::<(String, String), Pair>::new();
    for lab in 0..arguments.labs {
        for side in [Side::Ours, Side::Peer] {
            let rows = one_lab(arguments, (side == Side::Peer).then_some(peer))
                .with_context(|| format!("lab {lab} of {side:?}"))?;
            for row in rows {
                pairs.entry((row.name, row.unit)).or_default().side(side).push(row.median);
            }
        }
    }
    for ((name, unit), pair) in &pairs {
        report.add(name, unit, pair);
    }
    Ok(())
}

/// The rows of one lab, with this build or with that of another target directory.
fn one_lab(arguments: &DataplaneArguments, build: Option<&Path>) -> Result<Vec<Row>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--json", "dataplane", "--rounds", &arguments.rounds.to_string()]);
    command.args(["--trips", &arguments.trips.to_string()]);
    if let Some(flows) = arguments.flows {
        command.args(["--flows", &flows.to_string()]);
    }
    if let Some(target) = build {
        command.env("SPIDERPOOL_BIN", target.join("bin"));
        command.env("SPIDERPOOL_BPF_OBJECT", target.join("bpf/spiderpool.o"));
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "the benchmark of one lab ended with {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
