//! The eBPF object tells the kernel its licence; the crates that it is made of must say the same.

use std::fs;
use std::path::{Path, PathBuf};

/// The kernel's string, and the SPDX expression that makes it true.
const OBJECT: &str = r#"*b"Dual MIT/GPL\0""#;
const CRATES: &str = r#"license = "MIT OR GPL-2.0-only""#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn license_of_the_ebpf_object_is_that_of_its_crates() {
    let main = read("spiderpool-ebpf/src/main.rs");
    assert!(main.contains(OBJECT), "spiderpool-ebpf/src/main.rs lacks {OBJECT}");
    for manifest in ["spiderpool-ebpf/Cargo.toml", "spiderpool-ebpf-common/Cargo.toml"] {
        assert!(read(manifest).lines().any(|line| line == CRATES), "{manifest} lacks {CRATES}");
    }
}

#[test]
fn license_texts_of_the_ebpf_object_are_in_the_repository() {
    assert!(read("LICENSE-MIT").contains("Permission is hereby granted, free of charge"));
    let gpl = read("LICENSE-GPL-2.0");
    assert!(gpl.contains("GNU GENERAL PUBLIC LICENSE") && gpl.contains("Version 2, June 1991"));
}
