//! The processor architectures that images are made for.

use clap::ValueEnum;

/// Spelled as in OCI images, Kubernetes and Go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    /// That of this machine; others than these two build nothing for it but what they have themselves.
    pub(crate) const HOST: Self = if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::Amd64 };

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// Rust's name of the target when it is not this machine. musl: its start files and library come with the target.
    pub(crate) fn cross_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-musl",
            Self::Arm64 => "aarch64-unknown-linux-musl",
        }
    }

    /// The one that is not this machine's.
    pub(crate) fn other() -> Self {
        match Self::HOST {
            Self::Amd64 => Self::Arm64,
            Self::Arm64 => Self::Amd64,
        }
    }

    /// The program that runs its programs elsewhere, of the package `qemu-user-static`.
    pub(crate) fn emulator(self) -> &'static str {
        match self {
            Self::Amd64 => "qemu-x86_64-static",
            Self::Arm64 => "qemu-aarch64-static",
        }
    }

    /// The C compiler that makes code for it elsewhere, and the package that has it.
    pub(crate) fn cross_compiler(self) -> (&'static str, &'static str) {
        match self {
            Self::Amd64 => ("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu libc6-dev-amd64-cross"),
            Self::Arm64 => ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"),
        }
    }
}
