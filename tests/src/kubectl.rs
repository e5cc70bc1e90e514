//! Whatever kubectl can be run against: the control plane of the lab, or a whole cluster.

use anyhow::Result;

/// For the environment of kubectl and helm: they end before collecting garbage, a fifth of their processor time, is of
/// use.
pub const NO_GARBAGE: (&str, &str) = ("GOGC", "off");

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
        self.kubectl_with_input(&["apply", "--server-side", "--force-conflicts", "-f", "-"], manifests)
    }
}
