//! Keeps the promises of ARCHITECTURE.md about which crate may use which.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// What each crate of the workspace may depend on within it.
const ALLOWED: &[(&str, &[&str])] = &[
    ("spiderpool-core", &[]),
    ("spiderpool-ebpf-common", &[]),
    ("spiderpool-api", &["spiderpool-core"]),
    ("spiderpool-net", &["spiderpool-core"]),
    ("spiderpool-runtime", &["spiderpool-core", "spiderpool-api"]),
    ("spiderpool-dataplane", &["spiderpool-core", "spiderpool-net", "spiderpool-ebpf-common"]),
    ("spiderpool-client", &["spiderpool-core", "spiderpool-api"]),
    (
        "spiderpool-cni",
        &["spiderpool-core", "spiderpool-api", "spiderpool-client", "spiderpool-net", "spiderpool-dataplane"],
    ),
    (
        "spiderpool-agent",
        &[
            "spiderpool-core",
            "spiderpool-api",
            "spiderpool-net",
            "spiderpool-dataplane",
            "spiderpool-runtime",
        ],
    ),
    ("spiderpool-testbox", &[]),
    (FUZZ, &["spiderpool-core", "spiderpool-api", "spiderpool-cni"]),
    ("spiderpool-controller", &["spiderpool-core", "spiderpool-api", "spiderpool-runtime"]),
    ("xtask", &[]),
];

/// Uses everything, so that it can test everything; nothing uses it.
const TESTS: &str = "spiderpool-tests";

/// Its program is the fuzzer.
const FUZZ: &str = "spiderpool-fuzz";

/// Crates in which `unsafe` is permitted, with a comment on each block.
const UNSAFE: &[&str] = &["spiderpool-net", "spiderpool-dataplane", "spiderpool-ebpf-common"];

#[test]
fn crates_depend_only_on_what_lies_below_them() -> Result<()> {
    let metadata = metadata()?;
    let names: BTreeSet<_> =
        metadata.workspace_packages().iter().map(|package| package.name.to_string()).collect();
    for package in metadata.workspace_packages().into_iter().filter(|package| package.name != TESTS) {
        let allowed = allowed(&package.name)?;
        for dependency in direct(package).filter(|name| names.contains(*name)) {
            ensure!(
                allowed.contains(&dependency),
                "{} must not depend on {dependency}; allowed: {allowed:?}. See ARCHITECTURE.md",
                package.name
            );
        }
    }
    Ok(())
}

#[test]
fn core_is_pure() -> Result<()> {
    const EFFECTS: [&str; 9] =
        ["tokio", "kube", "k8s-openapi", "netlink", "rtnetlink", "tracing", "log", "nix", "aya"];
    for name in transitive(&metadata()?, "spiderpool-core")? {
        let effect = |effect: &&str| {
            name.strip_prefix(effect).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
        };
        ensure!(!EFFECTS.iter().any(effect), "spiderpool-core reaches {name}, but holds decisions only");
    }
    Ok(())
}

#[test]
fn netlink_is_spoken_by_net_alone() -> Result<()> {
    only_in(&["spiderpool-net"], |name| name.starts_with("netlink") || name == "rtnetlink" || name == "neli")
}

#[test]
fn programs_are_loaded_by_the_dataplane_alone() -> Result<()> {
    // spiderpool-ebpf-common implements aya's marker trait for values of maps.
    only_in(&["spiderpool-dataplane", "spiderpool-ebpf-common"], |name| name == "aya" || name == "aya-obj")
}

#[test]
fn crates_without_need_forbid_unsafe_code() -> Result<()> {
    for package in metadata()?.workspace_packages() {
        let roots = package.targets.iter().filter(|target| target.is_lib() || target.is_bin());
        // What libFuzzer calls has a name that is not mangled, which counts as unsafe.
        let is_fuzzer = package.name == FUZZ;
        let roots = roots.filter(|target| !(is_fuzzer && target.is_bin()));
        for root in roots.filter(|_| !UNSAFE.contains(&package.name.as_str())) {
            let text = fs::read_to_string(&root.src_path)?;
            ensure!(
                text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]"),
                "{} does not say #![forbid(unsafe_code)]",
                root.src_path
            );
        }
    }
    Ok(())
}

fn metadata() -> Result<Metadata> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).exec().context("cannot read the crate graph")
}

fn allowed(name: &str) -> Result<&'static [&'static str]> {
    let entry = ALLOWED.iter().find(|(package, _)| *package == name);
    entry
        .map(|(_, allowed)| *allowed)
        .with_context(|| format!("{name} is new: say in ALLOWED and in ARCHITECTURE.md what it may use"))
}

/// What a package uses outside its own tests.
fn direct(package: &Package) -> impl Iterator<Item = &str> {
    let used =
        package.dependencies.iter().filter(|dependency| dependency.kind != DependencyKind::Development);
    used.map(|dependency| dependency.name.as_str())
}

/// Fails if a crate other than `crates` and the tests uses what `matches`.
fn only_in(crates: &[&str], matches: fn(&str) -> bool) -> Result<()> {
    for package in metadata()?.workspace_packages() {
        let may = package.name == TESTS || crates.contains(&package.name.as_str());
        if let Some(dependency) = direct(package).find(|name| !may && matches(name)) {
            bail!("{} uses {dependency}, which only {crates:?} may", package.name);
        }
    }
    Ok(())
}

/// Names of all that is compiled into a crate.
fn transitive(metadata: &Metadata, name: &str) -> Result<BTreeSet<String>> {
    let resolve = metadata.resolve.as_ref().context("cargo metadata resolved nothing")?;
    let root = metadata.workspace_packages().into_iter().find(|package| package.name == name);
    let mut waiting: Vec<&PackageId> = vec![&root.with_context(|| format!("{name} is no member"))?.id];
    let mut seen = BTreeSet::new();
    while let Some(id) = waiting.pop() {
        let node = resolve.nodes.iter().find(|node| node.id == *id);
        for dependency in &node.with_context(|| format!("{id} is not resolved"))?.deps {
            let is_used = dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal);
            if is_used && seen.insert(&dependency.pkg) {
                waiting.push(&dependency.pkg);
            }
        }
    }
    Ok(seen.into_iter().map(|id| metadata[id].name.to_string()).collect())
}
