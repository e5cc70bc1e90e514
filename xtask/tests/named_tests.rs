//! Documents name the tests that show what they say: each of these is there, and runs. By tokens, so comments are no tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, ensure};
use cargo_metadata::MetadataCommand;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Upstream's end-to-end cases that are listed: letter, first and last number.
const CASES: &[(char, u32, u32)] = &[
    ('L', 1, 9),
    ('A', 1, 18),
    ('E', 1, 10),
    ('D', 1, 17),
    ('S', 1, 4),
    ('G', 1, 12),
    ('R', 1, 7),
    ('P', 2, 2),
    ('K', 1, 2),
    ('I', 1, 24),
    ('T', 1, 5),
    ('F', 1, 3),
    ('H', 1, 1),
];

const DROPPED: &str = "upstream has dropped it";

/// Names of tests; whether one of the name runs.
type Tests = BTreeMap<String, bool>;

fn document(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

#[test]
fn tests_that_documents_name_are_there_and_run() -> Result<()> {
    let tests = tests_of_the_workspace()?;
    let mut faults = Vec::new();
    for (name, is_name) in
        [("compatibility.md", is_name_of_words as fn(&str) -> bool), ("upstream-cases.md", |_| true)]
    {
        let found = faults_of_names(&document(name)?, is_name, &tests);
        faults.extend(found.into_iter().map(|fault| format!("docs/{name}: {fault}")));
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn every_case_of_upstream_is_listed_once_with_what_shows_it() -> Result<()> {
    let faults = faults_of_cases(&document("upstream-cases.md")?, CASES);
    ensure!(faults.is_empty(), "docs/upstream-cases.md: {}", faults.join("\n"));
    Ok(())
}

/// First and last cells of the rows of tables, without their heads.
fn rows(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix('|')?.trim_end().strip_suffix('|'));
    let cells =
        lines.filter_map(|line| Some((line.split_once('|')?.0.trim(), line.rsplit_once('|')?.1.trim())));
    let is_head = |first: &str| first == "case" || first == "fault" || first.starts_with("---");
    cells.filter(move |(first, _)| !is_head(first))
}

fn in_backquotes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Where other things are in backquotes too.
fn is_name_of_words(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.contains('_') && text.bytes().all(is_part)
}

fn faults_of_names(text: &str, is_name: impl Fn(&str) -> bool, tests: &Tests) -> Vec<String> {
    let names: BTreeSet<_> = rows(text).flat_map(|(_, last)| in_backquotes(last)).collect();
    let named = names.into_iter().filter(|name| is_name(name));
    let faults = named.filter_map(|name| match tests.get(name) {
        Some(true) => None,
        Some(false) => Some(format!("the test {name} is ignored")),
        None => Some(format!("there is no test {name}")),
    });
    faults.collect()
}

fn faults_of_cases(text: &str, cases: &[(char, u32, u32)]) -> Vec<String> {
    let numbers = |&(letter, first, last)| (first..=last).map(move |number| format!("{letter}{number:05}"));
    let mut missing: BTreeSet<String> = cases.iter().flat_map(numbers).collect();
    let mut faults = Vec::new();
    for (case, shown) in rows(text) {
        if !missing.remove(case) {
            faults.push(format!("{case} is there twice, or is no case"));
        }
        let has_test = in_backquotes(shown).next().is_some();
        let is_known = match shown.split_once(": ") {
            Some(("partly", rest)) => has_test && rest.contains("; "),
            Some(("not yet", _)) => !has_test,
            _ => shown == DROPPED || shown.starts_with('`') && shown.ends_with('`'),
        };
        if !is_known {
            let forms = "tests, \"partly: \" with tests, \"; \" and what lacks, \"not yet: \" and what lacks";
            faults.push(format!("{case} has {shown:?}; it may have {forms}, or {DROPPED:?}"));
        }
    }
    faults.extend(missing.into_iter().map(|case| format!("{case} is missing")));
    faults
}

fn tests_of_the_workspace() -> Result<Tests> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let mut tests = Tests::new();
    for package in metadata.workspace_packages() {
        let folder = package.manifest_path.parent().context("a manifest has a folder")?;
        read_folder(folder.as_std_path(), &mut tests)?;
    }
    Ok(tests)
}

fn read_folder(folder: &Path, tests: &mut Tests) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.ends_with("target") {
                read_folder(&path, tests)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            read_tests(text.parse().map_err(|error| anyhow!("{}: {error}", path.display()))?, tests);
        }
    }
    Ok(())
}

fn read_tests(tokens: TokenStream, tests: &mut Tests) {
    let (mut is_test, mut is_ignored) = (false, false);
    let mut tokens = tokens.into_iter().peekable();
    let is_attribute = |token: &TokenTree| matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket);
    while let Some(token) = tokens.next() {
        let ends_item = match &token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                if let Some(TokenTree::Group(group)) = tokens.next_if(is_attribute) {
                    let text = group.stream().to_string().replace(' ', "");
                    is_test |= text == "test" || text == "tokio::test" || text.starts_with("tokio::test(");
                    is_ignored |= text.starts_with("ignore")
                        || text.starts_with("cfg_attr(") && text.contains(",ignore");
                }
                false
            }
            TokenTree::Ident(ident) if ident == "fn" => {
                if let (true, Some(name)) = (is_test, tokens.next()) {
                    *tests.entry(name.to_string()).or_default() |= !is_ignored;
                }
                true
            }
            TokenTree::Group(group) => {
                read_tests(group.stream(), tests);
                group.delimiter() == Delimiter::Brace
            }
            TokenTree::Punct(punct) => punct.as_char() == ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        };
        if ends_item {
            (is_test, is_ignored) = (false, false);
        }
    }
}

#[test]
fn what_is_no_test_or_does_not_run_is_told_from_what_does() -> Result<()> {
    let text = r#"
        // #[test] fn commented_out() {}
        fn a_helper() {}
        #[test]
        fn a_plain_one() {}
        mod inner {
            #[tokio::test(flavor = "multi_thread")]
            pub(crate) async fn an_async_one() {}
            #[test]
            #[ignore = "slow"]
            fn an_ignored_one() {}
            fn behind_it() {}
        }
        proptest! { #[test] fn one_of_a_macro(x in 0..9) {} }
    "#;
    let mut tests = Tests::new();
    read_tests(text.parse().map_err(|error| anyhow!("{error}"))?, &mut tests);
    let expect =
        [("a_plain_one", true), ("an_async_one", true), ("an_ignored_one", false), ("one_of_a_macro", true)];
    assert_eq!(tests, expect.map(|(name, runs)| (name.to_owned(), runs)).into());

    let table =
        "| fault | here |\n|---|---|\n| `a_b` | `a_plain_one`, `an_ignored_one`, `a_helper`, `sp` |\n";
    assert_eq!(
        faults_of_names(table, is_name_of_words, &tests),
        ["there is no test a_helper", "the test an_ignored_one is ignored"]
    );
    Ok(())
}

#[test]
fn cases_that_are_missing_doubled_or_shown_by_nothing_are_found() {
    let head = "| case | what holds | tests |\n|---|---|---|\n";
    let faults = |text: &str| faults_of_cases(&format!("{head}{text}"), &[('L', 1, 2)]);
    let first = "| L00001 | a | `t` |\n";
    for second in ["`t`, `u`", "partly: `t`; no b", "not yet: no b", DROPPED] {
        assert_eq!(faults(&format!("{first}| L00002 | b | {second} |\n")), [""; 0], "{second}");
    }
    for second in ["", "t", "partly: `t`", "partly: no; b", "not yet: `t`", "not yet"] {
        assert_eq!(faults(&format!("{first}| L00002 | b | {second} |\n")).len(), 1, "{second}");
    }
    assert_eq!(faults(first), ["L00002 is missing"]);
    assert_eq!(
        faults(&format!("{first}{first}| L00003 | b | `t` |\n")),
        ["L00001 is there twice, or is no case", "L00003 is there twice, or is no case", "L00002 is missing"]
    );
}
