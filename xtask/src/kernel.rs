//! Linux kernels that tests are run on in virtual machines, beside this machine's own.

use clap::ValueEnum;

/// Debian's kernels for clouds: all drivers that are needed here are in them, and little else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 11
    #[value(name = "5.10")]
    V5_10,
    /// Debian 12, the last one of Debian without tcx
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13, also built for Debian 12
    #[value(name = "6.12")]
    V6_12,
}

impl Kernel {
    pub(crate) const ALL: [Self; 3] = [Self::V5_10, Self::V6_1, Self::V6_12];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V5_10 => "5.10",
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }

    /// The package that depends on the newest image of this kernel, whose own name changes with every update.
    pub(crate) fn package(self) -> &'static str {
        match self {
            Self::V5_10 | Self::V6_1 => "linux-image-cloud-amd64",
            Self::V6_12 => "linux-image-6.12-cloud-amd64",
        }
    }

    /// The suite of Debian's security archive that has it.
    pub(crate) fn suite(self) -> &'static str {
        match self {
            Self::V5_10 => "bullseye-security",
            Self::V6_1 | Self::V6_12 => "bookworm-security",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_named_as_on_the_command_line() {
        for kernel in Kernel::ALL {
            assert_eq!(Kernel::from_str(kernel.name(), false), Ok(kernel));
        }
    }
}
