//! The tables of docs/metrics.md, and metrics as they are served: both as names with a type and labels.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

/// A metric's type and its labels.
pub(crate) type Shape = (String, BTreeSet<String>);

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// What the document says that a component serves, by the metric's name.
pub(crate) fn documented(component: &str) -> Result<BTreeMap<String, Shape>> {
    let mut found = BTreeMap::new();
    for row in DOCUMENT.lines().filter(|line| line.starts_with("| `spiderpool_")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, of, _, _] = cells[..] else { bail!("not five columns: {row}") };
        let name = quoted(name).next().context("a name")?;
        if of == component || of == "both" {
            let shape = (kind.to_owned(), quoted(labels).collect());
            ensure!(found.insert(name.clone(), shape).is_none(), "{name} twice");
        } else {
            ensure!(["agent", "controller"].contains(&of), "{name}: of {of}?");
        }
    }
    Ok(found)
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// What a text of metrics has, each with the labels of all its samples.
pub(crate) fn served(text: &str) -> Result<BTreeMap<String, Shape>> {
    let mut found = BTreeMap::<String, Shape>::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            let (base, kind) = declared.split_once(' ').context("a type")?;
            let suffix = match kind {
                "counter" => "_total",
                "info" => "_info",
                _ => "",
            };
            name = format!("{base}{suffix}");
            ensure!(found.insert(name.clone(), (kind.to_owned(), BTreeSet::new())).is_none(), "{name} twice");
        } else if !line.starts_with('#') {
            let shape = found.get_mut(&name).with_context(|| format!("no type of {line}"))?;
            ensure!(line.starts_with(&name), "{line} below {name}");
            let labels = line.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0));
            let labels = labels.into_iter().flat_map(|labels| labels.split(','));
            let names = labels.filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            shape.1.extend(names.filter(|name| name != "le"));
        }
    }
    Ok(found)
}

/// The value of a sample, named with its labels.
pub(crate) fn value(text: &str, sample: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok())
}
