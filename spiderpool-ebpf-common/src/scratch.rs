//! Memory of one run of a program.

use crate::headers::Headers;
use crate::maps::FlowKeys;
use crate::rewrite::Rewrite;
use crate::rewrite::too_big::Message;
use crate::verdict::Outcome;

/// What a run works in. In the kernel it is map memory: the stack has 512 bytes, and what lies there the verifier
/// follows through every branch.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scratch {
    /// What was read of the packet.
    pub headers: Headers,
    /// What was read of the packet that an ICMP error quotes.
    pub quoted: Headers,
    /// The keys of its flow, of a packet that comes in.
    pub keys: FlowKeys,
    /// What is to be changed in it.
    pub rewrite: Rewrite,
    /// An ICMP error while it is made.
    pub message: Message,
    /// What was decided.
    pub outcome: Outcome,
}

impl Scratch {
    /// Stores a decision and reads it back. To the verifier a value from map memory may be any value, so the branches that
    /// led to it continue as one; without this it follows each of them to the end of the program (297702 instead of
    /// 148759 instructions of `egress`).
    #[inline(always)]
    pub(crate) fn reload(at: &mut Outcome, outcome: Outcome) -> Outcome {
        *at = outcome;
        // SAFETY: a reference, just written. Volatile, so that the compiler does not take the value that it knows.
        unsafe { core::ptr::read_volatile(at) }
    }
}
