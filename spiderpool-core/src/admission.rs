//! What a webhook fills in and refuses, as functions of the objects: normalized fields, and all faults of an object at
//! once. What a spec means is decided by the modules of its kind, which agents ask as well; here is what is more: what
//! may change, what somebody else has, and what is a mistake although it has a meaning.

pub mod network;
pub mod pool;
pub mod ranges;
pub mod reserved;
pub mod subnet;

use crate::ip::Family;

/// The families that the cluster uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// `enableIPv4`.
    pub v4: bool,
    /// `enableIPv6`.
    pub v6: bool,
}

impl Families {
    /// Why an object of a family that is not used is refused.
    fn refusal(self, family: Family) -> Option<String> {
        let is_enabled = match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        };
        (!is_enabled).then(|| format!("{family} is disabled"))
    }
}

/// `ipVersion` as it is written: 4 or 6.
fn unsupported_version(version: Option<i64>) -> Option<crate::field_error::FieldError> {
    let version = version.filter(|version| Family::from_version(*version).is_none())?;
    Some(crate::field_error::FieldError::not_supported("spec.ipVersion", version, [4, 6]))
}
