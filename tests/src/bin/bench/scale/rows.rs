//! What is reported for each number of agents, and the lines through it.

use std::collections::BTreeMap;

use crate::samples::{Pair, Report, Samples};

use super::line::Line;

/// The size of a cluster that the lines are extended to.
const LARGE: usize = 5000;

/// A quantity of the API server that may grow with the number of agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Quantity {
    IdleCpu,
    LoadedCpu,
    AddMedian,
    AddTail,
    FailedAdds,
    FailedDels,
    Memory,
    RestartTime,
    RestartCpu,
}

impl Quantity {
    /// What it is called and its unit. `load` names the load.
    fn name(self, load: &str) -> (String, &'static str) {
        match self {
            Self::IdleCpu => ("API server's CPU, idle".to_owned(), "ms/s"),
            Self::LoadedCpu => (format!("API server's CPU, {load}"), "ms/s"),
            Self::AddMedian => (format!("ADD p50, {load}"), "ms"),
            Self::AddTail => (format!("ADD p99, {load}"), "ms"),
            Self::FailedAdds => (format!("failed ADDs, {load}"), ""),
            Self::FailedDels => (format!("failed DELs, {load}"), ""),
            Self::Memory => ("API server's memory".to_owned(), "MiB"),
            Self::RestartTime => {
                ("API server killed and started: all watches are open again".to_owned(), "s")
            }
            Self::RestartCpu => ("API server killed and started: its CPU until then".to_owned(), "s"),
        }
    }

    /// Whether a line through it says something.
    fn has_line(self) -> bool {
        !matches!(self, Self::FailedAdds | Self::FailedDels)
    }
}

/// All samples, by quantity and number of agents.
#[derive(Debug, Default)]
pub(super) struct Rows {
    quantities: BTreeMap<(Quantity, usize), Samples>,
    /// Events a second to each agent, by number of agents and resource.
    events: BTreeMap<(usize, String), Samples>,
    /// What starts of agents took, by the number of agents afterwards.
    starts: BTreeMap<usize, Start>,
}

/// What the start of some agents took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Start {
    /// CPU time of the API server per agent, in milliseconds.
    pub(super) cpu_ms: f64,
    /// Watches that each agent has open.
    pub(super) watches: f64,
}

impl Rows {
    pub(super) fn add(&mut self, quantity: Quantity, agents: usize, values: impl IntoIterator<Item = f64>) {
        self.quantities.entry((quantity, agents)).or_default().extend(values);
    }

    pub(super) fn add_events(&mut self, agents: usize, resource: &str, per_second: f64) {
        self.events.entry((agents, resource.to_owned())).or_default().push(per_second);
    }

    pub(super) fn add_start(&mut self, agents: usize, start: Start) {
        self.starts.insert(agents, start);
    }

    pub(super) fn report(&self, load: &str, report: &mut Report) {
        let row = |report: &mut Report, agents: usize, what: &str, unit: &str, samples: &Samples| {
            let pair = Pair { ours: samples.clone(), peer: Samples::default() };
            report.add(format!("{agents} agents: {what}"), unit, &pair);
        };
        for (agents, start) in &self.starts {
            let one = |value: f64| [value].into_iter().collect();
            row(report, *agents, "watches of each", "", &one(start.watches));
            row(report, *agents, "start of one, API server's CPU", "ms", &one(start.cpu_ms));
        }
        for ((quantity, agents), samples) in &self.quantities {
            let (what, unit) = quantity.name(load);
            row(report, *agents, &what, unit, samples);
        }
        for ((agents, resource), samples) in &self.events {
            row(report, *agents, &format!("events to each, {load}: {resource}"), "1/s", samples);
        }
        self.report_lines(load, report);
    }

    fn report_lines(&self, load: &str, report: &mut Report) {
        let mut quantities: Vec<_> = self.quantities.keys().map(|(quantity, _)| *quantity).collect();
        quantities.dedup();
        for quantity in quantities.into_iter().filter(|quantity| quantity.has_line()) {
            let Some(line) = self.line(quantity) else { continue };
            let (what, unit) = quantity.name(load);
            let one = |value: f64| Pair { ours: [value].into_iter().collect(), peer: Samples::default() };
            report.add(format!("slope per 1000 agents: {what}"), unit, &one(line.slope * 1000.0));
            report.add(format!("{LARGE} agents, extrapolated: {what}"), unit, &one(line.at(LARGE as f64)));
        }
    }

    /// Through the medians.
    fn line(&self, quantity: Quantity) -> Option<Line> {
        let of_quantity = self.quantities.iter().filter(|((of, agents), _)| {
            // Without agents pods come and go without addresses: a smaller load.
            *of == quantity && (*agents > 0 || quantity != Quantity::LoadedCpu)
        });
        let points: Vec<_> = of_quantity
            .filter_map(|((_, agents), samples)| Some((*agents as f64, samples.quantile(0.5)?)))
            .collect();
        Line::through(&points)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_through_the_medians_of_its_quantity() {
        let mut rows = Rows::default();
        rows.add(Quantity::IdleCpu, 0, [9.0, 1.0, 2.0]);
        rows.add(Quantity::IdleCpu, 100, [12.0]);
        rows.add(Quantity::LoadedCpu, 0, [9.0]);
        rows.add(Quantity::LoadedCpu, 100, [99.0]);
        let line = rows.line(Quantity::IdleCpu).unwrap();
        assert!((line.slope - 0.1).abs() < 1e-9 && (line.at(0.0) - 2.0).abs() < 1e-9, "{line:?}");
        assert_eq!(rows.line(Quantity::LoadedCpu), None);
    }
}
