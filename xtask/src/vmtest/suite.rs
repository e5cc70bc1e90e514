//! Which tests run on other kernels.

use crate::{kernel::Kernel, test_program::TestProgram};

/// The packages that have them.
pub(super) const PACKAGES: [&str; 2] = ["spiderpool-net", "spiderpool-dataplane"];

/// Programs in the order in which they run. Tests of the last ones wait until the machine has been up for a minute and a half.
const ORDER: [&str; 8] =
    ["executor", "kernel", "attach", "differential", "load", "live", "programs", "flows"];
/// These do in userspace what they do on every kernel, and load the programs again and again for it.
const WHOLE_ALONE: [&str; 2] = ["load", "flows"];

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

/// Those of `programs` that run on other kernels, in order.
pub(super) fn select(mut programs: Vec<TestProgram>, extent: Extent) -> Vec<TestProgram> {
    programs.retain(|program| {
        program.is_integration_test
            && PACKAGES.contains(&program.package.as_str())
            && (extent == Extent::Whole || !WHOLE_ALONE.contains(&program.target.as_str()))
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
            program("spiderpool-net", "kernel"),
            program("spiderpool-net", "new"),
            program("tests", "flows"),
        ];
        let names = |extent| {
            let selected = select(all.clone(), extent);
            selected.into_iter().map(|program| program.target).collect::<Vec<_>>()
        };
        assert_eq!(names(Extent::Whole), ["new", "kernel", "programs", "flows"]);
        assert_eq!(names(Extent::Short), ["new", "kernel", "programs"]);
    }
}
