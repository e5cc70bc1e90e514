//! What takes too long for every change: run by `cargo xtask test --long` alone.

use std::env;

/// Set by the xtask.
const VARIABLE: &str = "SPIDERPOOL_LONG_TESTS";

/// Whether a test that belongs to the long form alone is to run; says so if not.
pub fn asked_for_or_skip(test: &str) -> bool {
    let is_asked_for = is_asked_for();
    if !is_asked_for {
        eprintln!("skipped: {test} is run by `cargo xtask test --long`");
    }
    is_asked_for
}

/// Whether tests run in their long form.
pub fn is_asked_for() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}
