//! Keeps the modules of each crate free of import circles.
//!
//! A module uses another if it names something that is defined there: in a `use` or in a path, but not in a re-export
//! (`pub use`), which only passes a name on, and not in tests. Names are followed through re-exports to the module
//! that defines them. So a parent and its child may use each other's names in one direction only; parents that hold
//! nothing but declarations and re-exports are in no circle.

mod graph;
mod source;

use anyhow::{Context as _, Result, ensure};
use cargo_metadata::MetadataCommand;
use cargo_metadata::camino::Utf8PathBuf;

use graph::circles;
use source::Crate;

/// A workspace of its own, because it is built for another target.
const PROGRAMS: &str = "spiderpool-ebpf";

#[test]
fn no_crate_has_an_import_circle() -> Result<()> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let manifest = |folder: &str| format!("{folder}/Cargo.toml");
    let mut found = Vec::new();
    for manifest in [manifest(folder), manifest(&format!("{folder}/{PROGRAMS}"))] {
        let roots = roots(&manifest)?;
        for root in &roots {
            let parsed = Crate::read(root.as_std_path()).with_context(|| root.to_string())?;
            found.extend(circles(&parsed).into_iter().map(|circle| format!("{root}: {circle}")));
        }
    }
    ensure!(found.is_empty(), "modules import each other in a circle:\n{}", found.join("\n"));
    Ok(())
}

/// The root files of libraries and binaries of a workspace.
fn roots(manifest: &str) -> Result<Vec<Utf8PathBuf>> {
    let metadata = MetadataCommand::new().manifest_path(manifest).no_deps().exec()?;
    let packages = metadata.workspace_packages().into_iter();
    let targets = packages.flat_map(|package| &package.targets);
    let roots = targets.filter(|target| target.is_lib() || target.is_bin());
    Ok(roots.map(|target| target.src_path.clone()).collect())
}

/// Writes the files of a crate, the first of which is its root, and finds its circles.
fn circles_of(files: &[(&str, &str)]) -> Result<Vec<String>> {
    let folder = tempfile::tempdir()?;
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().context("in a folder")?)?;
        std::fs::write(path, text)?;
    }
    Ok(circles(&Crate::read(&folder.path().join(files[0].0))?))
}

#[test]
fn siblings_that_use_each_other_are_found_with_what_they_use() -> Result<()> {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B; fn f() -> Result<()> { println!(\"{:?}\", super::a::A); }"),
    ])?;
    assert_eq!(found, ["a uses b::B, b uses a::A"]);
    Ok(())
}

#[test]
fn a_scope_of_visibility_is_no_use() -> Result<()> {
    let found = circles_of(&[
        ("lib.rs", "mod a;"),
        ("a.rs", "mod b; pub struct A; fn f(_: b::B) {}"),
        ("a/b.rs", "pub(in crate::a) struct B { pub(in crate::a) field: u8 } pub(in crate::a) fn g() {}"),
    ])?;
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn a_longer_circle_is_found_through_re_exports() -> Result<()> {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b; mod c;"),
        ("a.rs", "use crate::b::{self, X as Y};"),
        ("b.rs", "mod inner; pub use inner::X;"),
        ("b/inner.rs", "use crate::c::C; pub struct X;"),
        ("c.rs", "pub struct C; fn f(_: crate::a::A) {}"),
    ])?;
    assert_eq!(found, ["a uses b::inner::X, b::inner uses c::C, c uses a::A"]);
    Ok(())
}

#[test]
fn a_parent_may_re_export_what_its_child_makes_of_the_parents_types() -> Result<()> {
    let child = ("a/child.rs", "use super::A; pub struct Child(A);");
    let root = ("lib.rs", "mod a;");
    let none = circles_of(&[root, ("a.rs", "mod child; pub use child::Child; pub struct A;"), child])?;
    assert_eq!(none, Vec::<String>::new());
    let found = circles_of(&[root, ("a.rs", "mod child; pub struct A; fn f(_: child::Child) {}"), child])?;
    assert_eq!(found, ["a uses a::child::Child, a::child uses a::A"]);
    let both = "mod child; pub use child::Child; pub struct A; impl Child {}";
    assert_eq!(circles_of(&[root, ("a.rs", both), child])?, found);
    Ok(())
}

#[test]
fn tests_and_other_crates_do_not_count() -> Result<()> {
    let found = circles_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "use b_of_another_crate::b; pub struct A; #[cfg(test)] mod tests { use crate::b::B; }"),
        ("b.rs", "use crate::a::A; pub struct B;"),
    ])?;
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}
