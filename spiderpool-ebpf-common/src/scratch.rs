//! Memory of one run of a program.

use crate::headers::Headers;
use crate::rewrite::Rewrite;

/// What a run works in. In the kernel it is map memory: the stack has 512 bytes, and what lies there the verifier
/// follows through every branch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// What was read of the packet.
    pub headers: Headers,
    /// What is to be changed in it.
    pub rewrite: Rewrite,
}
