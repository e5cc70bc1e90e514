//! What kind of pod it is.

use std::fmt;
use std::str::FromStr;

use super::{PlanError, SettingsError};
use crate::names::IfName;

/// `mode` of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Decided by the pod's NICs.
    #[default]
    Auto,
    /// The first NIC is on the underlay.
    Underlay,
    /// The first NIC is another CNI plugin's, further ones are on the underlay.
    Overlay,
    /// Nothing is done.
    Disabled,
}

impl Mode {
    /// What may be written.
    pub const SPELLINGS: [&str; 5] = ["auto", "underlay", "overlay", "disabled", "disable"];
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Underlay => "underlay",
            Self::Overlay => "overlay",
            Self::Disabled => "disabled",
        })
    }
}

impl FromStr for Mode {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        match text {
            "auto" => Ok(Self::Auto),
            "underlay" => Ok(Self::Underlay),
            "overlay" => Ok(Self::Overlay),
            // Custom resources say disabled, network configurations of upstream say disable.
            "disabled" | "disable" => Ok(Self::Disabled),
            _ => Err(SettingsError::Mode(text.to_owned())),
        }
    }
}

/// What to set up for one NIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setup {
    /// An underlay NIC beside another CNI plugin's first NIC.
    Overlay,
    /// A pod whose first NIC is on the underlay.
    Underlay,
    /// Nothing.
    Nothing,
}

/// Decides by the mode and by what the pod has: veth0 is there in underlay pods only.
pub fn decide_setup(
    mode: Mode,
    nic: &IfName,
    first_nic: &IfName,
    has_veth0: bool,
) -> Result<Setup, PlanError> {
    let first = nic == first_nic;
    match mode {
        Mode::Disabled => Ok(Setup::Nothing),
        Mode::Auto if first || has_veth0 => Ok(Setup::Underlay),
        Mode::Underlay if !first && !has_veth0 => Err(PlanError::UnderlayWithoutVeth(nic.clone())),
        Mode::Underlay => Ok(Setup::Underlay),
        Mode::Overlay if first => Err(PlanError::OverlayOnFirstNic(nic.clone())),
        Mode::Overlay if has_veth0 => Err(PlanError::OverlayAfterUnderlay(nic.clone())),
        Mode::Auto | Mode::Overlay => Ok(Setup::Overlay),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mode: &str, nic: &str, has_veth0: bool, expect: Option<Setup>) {
        let first = "eth0".parse().unwrap();
        let decided = decide_setup(mode.parse().unwrap(), &nic.parse().unwrap(), &first, has_veth0);
        assert_eq!(decided.ok(), expect, "{mode} {nic} {has_veth0}");
    }

    #[test]
    fn the_pods_nics_decide_in_mode_auto() {
        check("auto", "eth0", false, Some(Setup::Underlay));
        check("auto", "net1", true, Some(Setup::Underlay));
        check("auto", "net1", false, Some(Setup::Overlay));
    }

    #[test]
    fn modes_are_not_mixed_in_one_pod() {
        check("overlay", "net1", false, Some(Setup::Overlay));
        check("overlay", "eth0", false, None);
        check("overlay", "net1", true, None);
        check("underlay", "eth0", false, Some(Setup::Underlay));
        check("underlay", "net1", true, Some(Setup::Underlay));
        check("underlay", "net1", false, None);
    }

    #[test]
    fn both_spellings_of_disabled_do_nothing() {
        check("disable", "net1", false, Some(Setup::Nothing));
        check("disabled", "eth0", true, Some(Setup::Nothing));
        assert!("off".parse::<Mode>().is_err());
    }
}
