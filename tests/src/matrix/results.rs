//! What came of all cells: which are not as they must be, and a table for the documents.

use std::collections::{BTreeMap, BTreeSet};

use spiderpool_core::coordinator::Dataplane;
use spiderpool_core::ip::Family;

use super::dimension::DATAPLANES;
use super::impossible::{Cell, Certainty, impossible};
use super::{DefaultRoute, Gateway, Mode, Setting};
use crate::probe::Protocol;

/// See the module.
#[derive(Debug, Default)]
pub struct Results {
    /// How many cells there were.
    pub cells: usize,
    /// Cells that failed although they must work, or worked although they cannot, in words.
    pub wrong: Vec<String>,
    /// Those that failed among others and worked alone: each time that happened, which they were.
    pub late: Vec<String>,
    /// The protocols of each flow, for pods of each mode.
    flows: BTreeMap<(Mode, String), BTreeSet<Protocol>>,
    /// The reasons that a cell has failed for.
    failed: BTreeSet<&'static str>,
}

impl Results {
    /// Enters a cell; whether it is as it must be.
    pub fn enter(&mut self, cell: &Cell<'_>, worked: bool) -> bool {
        self.cells += 1;
        let Setting { dataplane, mode, .. } = cell.setting;
        self.flows.entry((mode, cell.flow.to_owned())).or_default().insert(cell.protocol);
        let Some(line) = cell.impossible() else { return worked };
        let line = &impossible(dataplane, mode)[line];
        if !worked {
            self.failed.insert(line.reason);
        }
        !worked || line.certainty == Certainty::AtFirst
    }

    /// Adds those of another run.
    pub fn extend(&mut self, other: Self) {
        self.cells += other.cells;
        self.wrong.extend(other.wrong);
        self.late.extend(other.late);
        self.failed.extend(other.failed);
        for (flow, protocols) in other.flows {
            self.flows.entry(flow).or_default().extend(protocols);
        }
    }

    /// The reasons that no cell has failed for.
    pub fn unfounded(&self) -> Vec<&'static str> {
        let of = |dataplane| Mode::ALL.into_iter().flat_map(move |mode| impossible(dataplane, mode));
        let lines = DATAPLANES.into_iter().flat_map(of);
        lines
            .filter(|line| line.certainty == Certainty::Always && !self.failed.contains(line.reason))
            .map(|line| line.reason)
            .collect()
    }

    /// A table in Markdown of the flows that have run, and the reasons that it refers to by number. What it says of a
    /// flow is [`impossible`], of every setting of dataplane and mode; that this is so, the cells have shown.
    pub fn table(&self, dataplane: Dataplane, mode: Mode) -> String {
        let columns = [true, false].map(|alive| DefaultRoute::ALL.map(|route| (route, alive)));
        let row = |((_, flow), protocols): (&(Mode, String), &BTreeSet<Protocol>)| {
            let marks = columns.as_flattened().iter().map(|(route, alive)| {
                let of_column =
                    |it: &Setting| (it.dataplane, it.mode, it.default_route) == (dataplane, mode, *route);
                mark(flow, protocols, of_column, *alive)
            });
            format!("| {flow} | {} |\n", marks.collect::<Vec<_>>().join(" | "))
        };
        let rows: String = self.flows.iter().filter(|((of, _), _)| *of == mode).map(row).collect();
        let reasons = impossible(dataplane, mode).iter().enumerate();
        let reasons: Vec<_> =
            reasons.map(|(number, line)| format!("{}. {}", number + 1, line.reason)).collect();
        format!(
            "| flow | default route on eth0 | on net1 | eth0, gateway dead | net1, gateway dead |\n\
             |---|---|---|---|---|\n{rows}\n{}\n",
            reasons.join("\n")
        )
    }
}

/// `+` works in all settings, `+ (3)` in some, `- (1)` in none, for the reasons of these numbers.
fn mark(
    flow: &str,
    protocols: &BTreeSet<Protocol>,
    of_column: impl Fn(&Setting) -> bool,
    alive: bool,
) -> String {
    let (mut works, mut lines) = (false, BTreeSet::new());
    let gateways = Gateway::ALL.into_iter().filter(|gateway| alive == (*gateway != Gateway::Dead));
    for gateway in gateways {
        let settings = Setting::all().into_iter();
        for setting in settings.filter(|it| of_column(it) && gateway.can_be(it)) {
            for (family, protocol) in
                Family::ALL.into_iter().flat_map(|family| protocols.iter().map(move |it| (family, *it)))
            {
                match (Cell { setting, gateway, family, flow, protocol }).impossible() {
                    Some(line) => drop(lines.insert(line + 1)),
                    None => works = true,
                }
            }
        }
    }
    let lines: Vec<String> = lines.iter().map(usize::to_string).collect();
    match (works, lines.is_empty()) {
        (true, true) => "+".into(),
        (works, _) => format!("{} ({})", if works { "+" } else { "-" }, lines.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Pools;

    fn cell(flow: &str) -> Cell<'_> {
        let mut settings = Setting::all();
        settings.retain(|setting| setting.mode == Mode::Overlay && setting.pools == Pools::NoGateway);
        Cell {
            setting: settings[0],
            gateway: Gateway::Alive,
            family: Family::V4,
            flow,
            protocol: Protocol::Tcp,
        }
    }

    #[test]
    fn a_cell_is_wrong_if_it_fails_or_if_it_works_and_is_listed() {
        let mut results = Results::default();
        assert!(results.enter(&cell("pod to own node"), true));
        assert!(!results.enter(&cell("pod to own node"), false));
        assert!(results.enter(&cell("net1 socket to outside"), false));
        assert!(!results.enter(&cell("net1 socket to outside"), true));
        assert_eq!(results.cells, 4);
    }

    #[test]
    fn a_reason_that_no_cell_has_failed_for_is_told() {
        let mut results = Results::default();
        let before = results.unfounded().len();
        results.enter(&cell("net1 socket to outside"), false);
        assert_eq!(results.unfounded().len(), before - 1);
    }

    #[test]
    fn the_table_has_a_mark_for_each_column() {
        let mut results = Results::default();
        results.enter(&cell("pod to own node"), true);
        results.enter(&cell("net1 socket to outside"), false);
        let table = results.table(Dataplane::Ebpf, Mode::Overlay);
        assert!(table.contains("| pod to own node | + | + | + | + |\n"), "{table}");
        assert!(table.contains("| net1 socket to outside | + (2) | + | - (1) | - (1) |\n"), "{table}");
    }
}
