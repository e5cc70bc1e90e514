//! What takes too long for every change: run by `cargo xtask test --long` alone.

use std::env;

/// Set by the xtask.
const VARIABLE: &str = "SPIDERPOOL_LONG_TESTS";

/// Whether tests run in their long form.
pub fn is_asked_for() -> bool {
    env::var_os(VARIABLE).is_some_and(|value| !value.is_empty())
}
