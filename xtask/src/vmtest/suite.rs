//! Which tests run on other kernels, and what a machine for them has.

use crate::test_program::TestProgram;

/// The packages that have them.
pub(super) const PACKAGES: [&str; 2] = ["spiderpool-net", "spiderpool-dataplane"];
pub(super) const CPUS: u8 = 1;
/// MiB.
pub(super) const MEMORY: u32 = 512;

pub(super) fn contains(program: &TestProgram) -> bool {
    program.is_integration_test && PACKAGES.contains(&program.package.as_str())
}
