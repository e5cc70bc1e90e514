//! Which tests run on other kernels.

use crate::{kernel::Kernel, test_program::TestProgram};

/// The packages whose integration tests need a kernel and at most the programs.
const OF_KERNEL: [&str; 2] = ["spiderpool-net", "spiderpool-dataplane"];
/// Tests of the package `spiderpool-tests` that also need the agent, the plugins and a control plane: what this machine's kernel
/// may not have. On those of the others that have not either, they are skipped.
const OF_LAB: [&str; 4] = [OF_PLUGIN, "underlay_masters", "netkit", "sctp"];
/// The one that needs a plugin alone, and kinds of links that this machine's kernel may not have.
const OF_PLUGIN: &str = "ifacer";
/// Where they are.
const LAB: &str = "tests";

/// Programs in the order in which they run. Tests of `programs` and `flows` wait until the machine has been up for a minute and
/// a half.
const ORDER: [&str; 13] = [
    "executor",
    "kernel",
    OF_PLUGIN,
    "attach",
    "differential",
    "load",
    "layouts",
    "live",
    "programs",
    "flows",
    "underlay_masters",
    "netkit",
    "sctp",
];
/// Each of these loads the programs for few packets, or for what is done in userspace: an emulated machine verifies them for more than
/// a minute. `kernel` makes many network namespaces, for which it takes six minutes beside other tests, and needs nothing of a kernel that
/// this machine's has not.
const WHOLE_ALONE: [&str; 7] = ["load", "layouts", "flows", "attach", "tagged", "checksums", "kernel"];

/// This compares the programs with nftables and policy routing, of which a guest's kernel may not have all. What the programs decide
/// does not depend on the kernel.
const HERE_ALONE: &str = "policy_routing";

/// How much runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// What depends most on the kernel, on the one that most clusters have.
    Short,
    /// Everything, on all kernels.
    Whole,
}

impl Extent {
    pub(super) fn kernels(self) -> &'static [Kernel] {
        match self {
            Self::Short => &[Kernel::V6_1],
            Self::Whole => &Kernel::ALL,
        }
    }

    /// At most so many random inputs of each kind.
    pub(super) fn random_inputs(self) -> Option<u32> {
        match self {
            Self::Short => Some(100),
            Self::Whole => None,
        }
    }
}

/// Whether a test program of this name needs the agent, the plugins and a control plane.
pub(super) fn is_of_lab(target: &str) -> bool {
    OF_LAB.contains(&target)
}

/// Arguments of `cargo test` for those that need a kernel and at most the programs, and for the others.
pub(super) fn cargo_arguments(extent: Extent) -> [Vec<&'static str>; 2] {
    let kernel = OF_KERNEL.iter().flat_map(|package| ["--package", *package]);
    let lab: &[&str] = if extent == Extent::Short { &[OF_PLUGIN] } else { &OF_LAB };
    let lab = lab.iter().flat_map(|test| ["--test", *test]);
    [kernel.collect(), ["--package", "spiderpool-tests"].into_iter().chain(lab).collect()]
}

/// Those of `programs` that run on other kernels, in order.
pub(super) fn select(mut programs: Vec<TestProgram>, extent: Extent) -> Vec<TestProgram> {
    programs.retain(|program| {
        let (package, target) = (program.package.as_str(), program.target.as_str());
        let is_short = OF_KERNEL.contains(&package) && !WHOLE_ALONE.contains(&target)
            || package == LAB && target == OF_PLUGIN;
        let is_whole = OF_KERNEL.contains(&package) || package == LAB && is_of_lab(target);
        let is_here_alone = target == HERE_ALONE;
        program.is_integration_test
            && !is_here_alone
            && if extent == Extent::Whole { is_whole } else { is_short }
    });
    // One that is new comes first.
    programs.sort_by_key(|program| ORDER.iter().position(|name| *name == program.target));
    programs
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn tests_of_kernel_and_programs_are_selected_in_order() {
        let program = |package: &str, target: &str| TestProgram {
            package: package.into(),
            target: target.into(),
            path: PathBuf::new(),
            folder: PathBuf::new(),
            is_integration_test: target != "unit",
        };
        let all = vec![
            program("spiderpool-dataplane", "flows"),
            program("spiderpool-dataplane", "programs"),
            program("spiderpool-dataplane", "unit"),
            program("spiderpool-dataplane", "policy_routing"),
            program("spiderpool-net", "kernel"),
            program("spiderpool-net", "new"),
            program("tests", "flows"),
            program("tests", "netkit"),
            program("tests", "underlay_masters"),
            program("tests", "ifacer"),
        ];
        let names = |extent| {
            let selected = select(all.clone(), extent);
            selected.into_iter().map(|program| program.target).collect::<Vec<_>>()
        };
        let whole = ["new", "kernel", "ifacer", "programs", "flows", "underlay_masters", "netkit"];
        assert_eq!(names(Extent::Whole), whole);
        assert_eq!(names(Extent::Short), ["new", "ifacer", "programs"]);
    }
}
