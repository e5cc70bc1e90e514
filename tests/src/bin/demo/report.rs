//! The table at the end: a row per flow, a column per mode, IPv4 and IPv6 in each cell, a verdict per row.

use std::fmt;
use std::time::Duration;

use anyhow::Result;
use spiderpool_core::ip::Family;
use spiderpool_tests::counters;
use spiderpool_tests::fixture::RouteHints;
use spiderpool_tests::flow::Flow;
use spiderpool_tests::matrix::DefaultRoute;
use spiderpool_tests::namespaces::Namespaces;

const COLUMNS: usize = 6;
/// The columns with the programs attached come first; only they decide.
const ATTACHED: usize = 4;

/// A mode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column(usize);

impl Column {
    pub(crate) fn attached(default_route: DefaultRoute, hints: RouteHints) -> Self {
        Self(usize::from(hints == RouteHints::Never) * 2 + Self::detached(default_route).0 - ATTACHED)
    }

    pub(crate) fn detached(default_route: DefaultRoute) -> Self {
        Self(ATTACHED + usize::from(default_route == DefaultRoute::Net1))
    }
}

/// How a flow went in each column and family.
#[derive(Debug)]
struct Row {
    name: String,
    cells: [[Option<bool>; 2]; COLUMNS],
    slowest: Duration,
}

/// All rows, in the order in which their flows were first run, and what went wrong.
#[derive(Debug, Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    failures: Vec<String>,
}

impl Report {
    /// Runs flows one after the other. One that fails is run again to see which counters it moves.
    pub(crate) fn run(
        &mut self,
        column: Column,
        flows: &[Flow],
        node: &Namespaces,
        pod: &Namespaces,
    ) -> Result<()> {
        for flow in flows {
            let outcome = flow.run();
            self.enter(column, flow, outcome.result.is_ok(), outcome.time);
            if let Err(error) = outcome.result {
                let ids = counters::nic_ids(pod)?;
                let before = counters::read(node, &ids)?;
                let again = if flow.run().result.is_ok() { "passed" } else { "failed" };
                let moved = counters::moved(&before, &counters::read(node, &ids)?);
                self.failures.push(format!(
                    "{}: {flow}: {error:#}\n    repeated: {again}; counters that moved: {moved:?}",
                    pod.name
                ));
            }
        }
        Ok(())
    }

    /// Enters results that decide nothing.
    pub(crate) fn compare(&mut self, column: Column, flows: &[Flow], worked: &[bool]) {
        for (flow, worked) in flows.iter().zip(worked) {
            self.enter(column, flow, *worked, Duration::ZERO);
        }
    }

    fn enter(&mut self, column: Column, flow: &Flow, worked: bool, time: Duration) {
        let replies = flow.server_nic.map_or(String::new(), |(nic, _)| format!(", replies by {nic}"));
        let name = format!("{}{replies} ({})", flow.name, flow.probe.protocol);
        let index = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name, cells: [[None; 2]; COLUMNS], slowest: Duration::ZERO });
            self.rows.len() - 1
        });
        let row = &mut self.rows[index];
        row.cells[column.0][usize::from(flow.family() == Family::V6)] = Some(worked);
        row.slowest = row.slowest.max(time);
    }

    /// Whether every flow worked in every mode with the programs attached.
    pub(crate) fn passed(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(Row::passed)
    }
}

impl Row {
    fn passed(&self) -> bool {
        self.cells[..ATTACHED].as_flattened().iter().all(|cell| *cell != Some(false))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or_default();
        writeln!(f, "{:width$}  {:^13}  {:^13}  {:^13}", "", "route hints", "no hints", "no programs")?;
        let pair = format!("{:^6} {:^6}", "eth0", "net1");
        writeln!(f, "{:width$}  {pair}  {pair}  {pair}", "flow; default route on")?;
        let version = ["v4 v6"; COLUMNS];
        writeln!(f, "{:width$}  {}   slowest  verdict", "", cells(&version.map(str::to_owned)))?;
        for row in &self.rows {
            let marks = row.cells.map(|[v4, v6]| format!("{:>2} {:>2}", mark(v4), mark(v6)));
            let verdict = if row.passed() { "pass" } else { "FAIL" };
            let slowest = row.slowest.as_secs_f32() * 1000.0;
            writeln!(f, "{:width$}  {}  {slowest:5.1} ms  {verdict}", row.name, cells(&marks))?;
        }
        for failure in &self.failures {
            writeln!(f, "FAIL {failure}")?;
        }
        Ok(())
    }
}

fn cells(texts: &[String; COLUMNS]) -> String {
    texts.chunks(2).map(|pair| format!("{:6} {:6}", pair[0], pair[1])).collect::<Vec<_>>().join("  ")
}

fn mark(worked: Option<bool>) -> &'static str {
    match worked {
        Some(true) => "+",
        Some(false) => "-",
        None => " ",
    }
}

#[cfg(test)]
mod tests {
    use spiderpool_tests::probe::{PORT, Probe, Protocol};

    use super::*;

    fn flow() -> Flow {
        Flow {
            name: "pod to nowhere".into(),
            from: Namespaces::of_process("pod", 1),
            probe: Probe { protocol: Protocol::Tcp, to: [192, 0, 2, 1].into(), bound: None },
            port: PORT,
            servers: Vec::new(),
            pod: Namespaces::of_process("pod", 1),
            client_nic: None,
            server_nic: None,
        }
    }

    fn report(column: Column) -> Report {
        let mut report = Report::default();
        report.enter(Column::attached(DefaultRoute::Eth0, RouteHints::Auto), &flow(), true, Duration::ZERO);
        report.enter(column, &flow(), false, Duration::ZERO);
        report
    }

    #[test]
    fn one_failed_cell_fails_its_row_and_the_report() {
        let failed = report(Column::attached(DefaultRoute::Net1, RouteHints::Never));
        assert!(!failed.passed());
        assert!(failed.to_string().contains("FAIL"), "{failed}");
    }

    #[test]
    fn without_programs_nothing_is_decided() {
        assert!(report(Column::detached(DefaultRoute::Net1)).passed());
    }

    #[test]
    fn nothing_run_is_not_a_pass() {
        assert!(!Report::default().passed());
    }

    #[test]
    fn columns_are_distinct() {
        let mut all: Vec<usize> = RouteHints::ALL
            .iter()
            .flat_map(|hints| DefaultRoute::ALL.map(|route| Column::attached(route, *hints).0))
            .chain(DefaultRoute::ALL.map(|route| Column::detached(route).0))
            .collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4, 5]);
    }
}
