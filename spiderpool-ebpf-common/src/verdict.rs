//! What becomes of a packet, and why.

use crate::reason::Reason;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on as if the program were not there (`TC_ACT_UNSPEC`).
    Pass,
    /// Goes no further (`TC_ACT_SHOT`).
    Drop,
    /// Leaves by this NIC; its MACs are right.
    Redirect {
        /// Interface index.
        ifindex: u32,
    },
    /// Comes in by this NIC.
    RedirectIngress {
        /// Interface index.
        ifindex: u32,
    },
    /// Leaves by this NIC; the kernel finds route and neighbor.
    RedirectNeigh {
        /// Interface index.
        ifindex: u32,
    },
}

#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Undecided,
    Pass,
    Drop,
    Redirect,
    RedirectIngress,
    RedirectNeigh,
}

impl Action {
    /// From its number; what is none of an action that later fragments can have passes.
    #[inline(always)]
    const fn from_number(number: u8) -> Self {
        if number == Self::Drop as u8 {
            Self::Drop
        } else if number == Self::Redirect as u8 {
            Self::Redirect
        } else if number == Self::RedirectNeigh as u8 {
            Self::RedirectNeigh
        } else {
            Self::Pass
        }
    }
}

/// A verdict with its reason, in one register.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    ifindex: u32,
    mtu: u16,
    action: Action,
    /// Why.
    pub reason: Reason,
}

const _: () = assert!(size_of::<Outcome>() == 8);

impl Default for Outcome {
    #[inline(always)]
    fn default() -> Self {
        Self::undecided(Reason::NotOurs)
    }
}

impl Outcome {
    /// [`Verdict::Pass`].
    #[inline(always)]
    pub const fn pass(reason: Reason) -> Self {
        Self { ifindex: 0, mtu: 0, action: Action::Pass, reason }
    }

    /// [`Verdict::Drop`].
    #[inline(always)]
    pub const fn drop(reason: Reason) -> Self {
        Self { ifindex: 0, mtu: 0, action: Action::Drop, reason }
    }

    /// [`Verdict::Redirect`].
    #[inline(always)]
    pub const fn redirect(ifindex: u32, reason: Reason) -> Self {
        Self { ifindex, mtu: 0, action: Action::Redirect, reason }
    }

    /// [`Verdict::RedirectIngress`].
    #[inline(always)]
    pub const fn redirect_ingress(ifindex: u32, reason: Reason) -> Self {
        Self { ifindex, mtu: 0, action: Action::RedirectIngress, reason }
    }

    /// [`Verdict::RedirectNeigh`].
    #[inline(always)]
    pub const fn redirect_neigh(ifindex: u32, reason: Reason) -> Self {
        Self { ifindex, mtu: 0, action: Action::RedirectNeigh, reason }
    }

    /// By a NIC of this MTU, which is not the one that the packet was made for.
    #[inline(always)]
    pub(crate) const fn with_mtu(mut self, mtu: u32) -> Self {
        self.mtu = if mtu > 0xffff { 0xffff } else { mtu as u16 };
        self
    }

    /// The MTU of the NIC that the packet is moved to; 0 if it is not moved.
    #[inline(always)]
    pub(crate) const fn mtu(self) -> u32 {
        self.mtu as u32
    }

    /// Nothing was decided. Calls that are not inlined return this instead of an `Option`, whose debug
    /// information the kernel does not accept.
    #[inline(always)]
    pub(crate) const fn undecided(reason: Reason) -> Self {
        Self { ifindex: 0, mtu: 0, action: Action::Undecided, reason }
    }

    /// What later fragments of the packet are told: action, interface index, MTU.
    #[inline(always)]
    pub(crate) const fn to_numbers(self) -> (u8, u32, u16) {
        // Of a packet that went back to its sender as an error the rest is of no use.
        let action = if matches!(self.action, Action::RedirectIngress) { Action::Drop } else { self.action };
        (action as u8, self.ifindex, self.mtu)
    }

    /// From what [`Self::to_numbers`] has returned.
    #[inline(always)]
    pub(crate) const fn from_numbers((action, ifindex, mtu): (u8, u32, u16), reason: Reason) -> Self {
        Self { ifindex, mtu, action: Action::from_number(action), reason }
    }

    /// The same with another reason if nothing was decided.
    #[inline(always)]
    pub(crate) const fn or_undecided(self, reason: Reason) -> Self {
        if matches!(self.action, Action::Undecided) { Self::undecided(reason) } else { self }
    }

    /// `None` for [`Self::undecided`].
    #[inline(always)]
    pub(crate) const fn decided(self) -> Option<Self> {
        if matches!(self.action, Action::Undecided) { None } else { Some(self) }
    }

    /// The verdict.
    #[inline(always)]
    pub const fn verdict(self) -> Verdict {
        let Self { ifindex, action, .. } = self;
        match action {
            Action::Undecided | Action::Pass => Verdict::Pass,
            Action::Drop => Verdict::Drop,
            Action::Redirect => Verdict::Redirect { ifindex },
            Action::RedirectIngress => Verdict::RedirectIngress { ifindex },
            Action::RedirectNeigh => Verdict::RedirectNeigh { ifindex },
        }
    }
}
