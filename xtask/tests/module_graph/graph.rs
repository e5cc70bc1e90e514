//! Which module uses which, and circles among them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::source::{Crate, Segments};

/// How many re-exports a name may be passed through.
const DEPTH: usize = 8;

/// For each module those that it uses, with an example of what it uses there.
type Graph = BTreeMap<Segments, BTreeMap<Segments, String>>;

/// One shortest circle for each module that is in one, listed from its first module.
pub(crate) fn circles(parsed: &Crate) -> Vec<String> {
    let graph = graph(parsed);
    let mut seen: BTreeSet<Segments> = BTreeSet::new();
    let mut found = Vec::new();
    for start in graph.keys() {
        if seen.contains(start) {
            continue;
        }
        if let Some(circle) = shortest(&graph, start) {
            let uses =
                |(from, to): &(Segments, Segments)| format!("{} uses {}", shown(from), graph[from][to]);
            found.push(circle.iter().map(uses).collect::<Vec<_>>().join(", "));
            seen.extend(circle.into_iter().map(|(from, _)| from));
        }
    }
    found
}

fn shown(module: &Segments) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

fn graph(parsed: &Crate) -> Graph {
    let mut graph = Graph::new();
    for (path, module) in &parsed.modules {
        let edges = graph.entry(path.clone()).or_default();
        for used in &module.used {
            let Some((target, item)) = resolve(parsed, path, used, DEPTH) else { continue };
            if target != *path {
                let name = target.iter().chain(item.as_ref()).cloned().collect::<Vec<_>>().join("::");
                edges.entry(target).or_insert(name);
            }
        }
    }
    graph
}

/// The module that defines what a path names from within a module, and the item's name if it is not the module
/// itself. `None` if it is in another crate.
fn resolve(
    parsed: &Crate,
    from: &Segments,
    written: &[String],
    depth: usize,
) -> Option<(Segments, Option<String>)> {
    let depth = depth.checked_sub(1)?;
    let (mut module, mut rest) = match written.first()?.as_str() {
        "crate" => (Segments::new(), &written[1..]),
        "self" | "super" => (from.clone(), written),
        first => {
            let here = &parsed.modules[from];
            let is_known = here.children.contains(first) || here.bindings.contains_key(first);
            // `use x::y` binds x::y's last name, which must not be looked up in itself.
            let is_own_binding = here.bindings.get(first).is_some_and(|path| path == written);
            if !is_known || is_own_binding {
                return None;
            }
            (from.clone(), written)
        }
    };
    while let [first, next @ ..] = rest {
        let here = parsed.modules.get(&module)?;
        match first.as_str() {
            "self" => {}
            "super" => drop(module.pop()?),
            name if here.children.contains(name) => module.push(name.to_owned()),
            name => {
                if let Some(path) = here.bindings.get(name) {
                    let path: Segments = path.iter().chain(next).cloned().collect();
                    return resolve(parsed, &module, &path, depth);
                }
                return Some(
                    in_globs(parsed, &module, name, depth)
                        .filter(|_| !here.items.contains(name))
                        .unwrap_or_else(|| (module.clone(), Some(name.to_owned()))),
                );
            }
        }
        rest = next;
    }
    Some((module, None))
}

/// Where a name comes from that a module may have by `use ..::*`.
fn in_globs(
    parsed: &Crate,
    module: &Segments,
    name: &str,
    depth: usize,
) -> Option<(Segments, Option<String>)> {
    parsed.modules[module].globs.iter().find_map(|glob| {
        let (target, _) = resolve(parsed, module, glob, depth)?;
        let there = parsed.modules.get(&target)?;
        let has = there.items.contains(name) || there.bindings.contains_key(name);
        has.then(|| resolve(parsed, &target, &["self".to_owned(), name.to_owned()], depth)).flatten()
    })
}

/// The edges of a shortest way from a module back to itself.
fn shortest(graph: &Graph, start: &Segments) -> Option<Vec<(Segments, Segments)>> {
    let mut came_from: BTreeMap<&Segments, &Segments> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(module) = waiting.pop_front() {
        for next in graph.get(module)?.keys() {
            if next == start {
                let mut edges = vec![(module.clone(), start.clone())];
                let mut at = module;
                while at != start {
                    edges.push((came_from[at].clone(), at.clone()));
                    at = came_from[at];
                }
                edges.reverse();
                return Some(edges);
            }
            if !came_from.contains_key(next) && graph.contains_key(next) {
                came_from.insert(next, module);
                waiting.push_back(next);
            }
        }
    }
    None
}
