//! Tests that need root: skipped with a printed reason without it, unless `CI=true`, where they fail.

use std::env;

/// Whether this process may make namespaces and load programs.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test that needs root can run. Panics instead of skipping when `CI=true`.
pub fn root_or_skip(test: &str) -> bool {
    if is_root() {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{test} needs root");
    eprintln!("skipped: {test} needs root");
    false
}
