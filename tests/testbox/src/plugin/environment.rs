//! The variables by which a container runtime tells a plugin what to do.

use std::env;

use anyhow::{Context as _, Result};

/// One of those that must be there.
pub(super) fn variable(name: &str) -> Result<String> {
    env::var(name).with_context(|| format!("{name} is not set"))
}
