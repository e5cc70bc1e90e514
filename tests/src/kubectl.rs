//! Whatever kubectl can be run against: the control plane of the lab, or a whole cluster.

use anyhow::Result;

use crate::poll;

/// For the environment of kubectl and helm: they end before collecting garbage, a fifth of their processor time, is of
/// use.
pub const NO_GARBAGE: (&str, &str) = ("GOGC", "off");

/// Whether kubectl asks for the API's description before it applies. An emulated API server takes longer to make it than the 32 s
/// that kubectl waits.
pub(crate) fn validation() -> &'static str {
    if poll::factor() > 1 { "--validate=false" } else { "--validate=true" }
}

/// Runs kubectl as administrator.
pub trait Kubectl {
    /// With `input` on its standard input; its output.
    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String>;

    /// Without input.
    fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "")
    }

    /// Applies manifests (YAML or JSON) by server-side apply.
    fn apply(&self, manifests: &str) -> Result<String> {
        let arguments = ["apply", "--server-side", "--force-conflicts", validation(), "-f", "-"];
        self.kubectl_with_input(&arguments, manifests)
    }
}
