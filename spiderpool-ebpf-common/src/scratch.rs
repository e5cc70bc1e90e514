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
    /// The keys of its flow.
    pub keys: FlowKeys,
    /// What is to be changed in it.
    pub rewrite: Rewrite,
    /// An ICMP error while it is made.
    pub message: Message,
    /// What was decided.
    pub outcome: Outcome,
    /// What is known of the packet's addresses.
    pub facts: Facts,
}

/// What is known of the addresses of a packet that leaves the pod. Read from memory each time: in a register the verifier would
/// follow each combination of them through the program.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    is_direct: bool,
    is_steered: bool,
    _pad: [u8; 6],
}

impl Facts {
    #[inline(always)]
    pub(crate) const fn set(&mut self, is_direct: bool, is_steered: bool) {
        (self.is_direct, self.is_steered) = (is_direct, is_steered);
    }

    /// The source is the exit NIC's address.
    #[inline(always)]
    pub(crate) fn is_direct(&self) -> bool {
        // SAFETY: a reference, and written by `set` before. Volatile: see above.
        unsafe { core::ptr::read_volatile(&raw const self.is_direct) }
    }

    /// The exit NIC reaches the destination.
    #[inline(always)]
    pub(crate) fn is_steered(&self) -> bool {
        // SAFETY: as above.
        unsafe { core::ptr::read_volatile(&raw const self.is_steered) }
    }
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
