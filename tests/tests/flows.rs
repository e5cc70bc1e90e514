//! The flow matrix in the lab: every flow in so many settings that every two values of their dimensions meet, with
//! `--long` in all settings. What it shows are the tables in `docs/dataplane.md` and `docs/policy.md`.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::fs;

use spiderpool_core::coordinator::Dataplane;
use spiderpool_tests::lab::matrix::{MatrixLab, run};
use spiderpool_tests::matrix::{Mode, Setting};
use spiderpool_tests::{long_form, privilege, tools};

/// For those who look for a fault: only settings whose description contains all of it, `OVS-like;1 NIC`.
const ONLY: &str = "SPIDERPOOL_MATRIX_ONLY";
/// If set, the table in the documents is written, not compared.
const UPDATE: &str = "SPIDERPOOL_UPDATE_DOCS";
/// Below `docs`, the document with the tables of each dataplane.
const DOCUMENTS: [(Dataplane, &str); 2] =
    [(Dataplane::Ebpf, "dataplane.md"), (Dataplane::Policy, "policy.md")];
/// How often cells may fail among the others and work alone.
const MOST_LATE: usize = 3;
/// What ends a table.
const END: &str = "<!-- end of the flow matrix -->\n";

/// What begins the table of a mode.
fn mark(mode: Mode) -> String {
    format!("<!-- The flow matrix, {mode} mode: written by tests/tests/flows.rs -->\n")
}

#[test]
fn every_flow_works_in_every_setting() {
    if !privilege::root_or_skip("every_flow_works_in_every_setting") {
        return;
    }
    let only = std::env::var(ONLY).ok();
    let mut settings = if long_form::is_asked_for() { Setting::all() } else { Setting::pairwise() };
    settings.retain(|setting| {
        only.iter().flat_map(|only| only.split(';')).all(|word| setting.to_string().contains(word))
    });
    let mut lab = MatrixLab::start().unwrap();
    let results = run(&mut lab, &settings).unwrap();
    lab.finish().unwrap();
    let wrong = &results.wrong;
    assert!(wrong.is_empty(), "{} of {} cells are wrong:\n{}", wrong.len(), results.cells, wrong.join("\n"));
    // Thousands of packets at once on two processors: an answer may come too late, but not many.
    let late = &results.late;
    assert!(late.len() <= MOST_LATE, "{} times cells work only alone:\n{}", late.len(), late.join("\n"));
    if only.is_none() {
        assert_eq!(results.unfounded(), Vec::<&str>::new(), "no cell has failed for these reasons");
        for (dataplane, document) in DOCUMENTS {
            for mode in Mode::ALL {
                compare_or_update(document, &mark(mode), &results.table(dataplane, mode));
            }
        }
    }
}

/// The document has the table after this mark, or gets it.
fn compare_or_update(document: &str, mark: &str, table: &str) {
    let path = tools::workspace().join("docs").join(document);
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(mark).expect("the mark before the table");
    let (present, after) = rest.split_once(END).expect("the mark after the table");
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, [before, mark, table, END, after].concat()).unwrap();
    } else {
        assert_eq!(present, table, "docs/{document} is not what was found; with {UPDATE}=1 it is written");
    }
}
