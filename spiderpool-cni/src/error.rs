//! Why a plugin failed, with the CNI error code of each.

use std::net::IpAddr;

use spiderpool_client::ClientError;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{PlanError, SettingsError, Step};
use spiderpool_core::names::IfName;
use spiderpool_dataplane::{AttachError, OpenError};
use spiderpool_net::executor::{ApplyError, StepError};
use spiderpool_net::netlink::NetlinkError;
use spiderpool_net::netns::NetNsError;
use thiserror::Error;

use crate::env::EnvError;
use crate::spec::{ErrorObject, VersionError};

/// A plugin failed. The message says what, its source says why.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The configuration is of a CNI version that we do not speak.
    #[error("incompatible CNI version")]
    Version(#[source] VersionError),
    /// An environment variable is missing or wrong.
    #[error("invalid environment variable")]
    Environment(#[from] EnvError),
    /// CNI_NETNS is gone or not a namespace.
    #[error("invalid CNI_NETNS")]
    NetNs(#[from] NetNsError),
    /// Standard input cannot be read.
    #[error("failed to read the network configuration from standard input")]
    Stdin(#[source] std::io::Error),
    /// The configuration is not JSON, or a field has the wrong type.
    #[error("failed to decode the network configuration")]
    Decode(#[source] serde_json::Error),
    /// A field's value is wrong.
    #[error("invalid network configuration")]
    Settings(#[from] SettingsError),
    /// A field is missing or wrong.
    #[error("invalid network configuration: {0}")]
    Config(String),
    /// The agent cannot be asked.
    #[error("unhealthy spiderpool-agent backend")]
    AgentDown(#[source] ClientError),
    /// The agent refused an allocation.
    #[error("spiderpool IP allocation error")]
    Allocation(#[source] ClientError),
    /// The agent gave addresses, but none for this NIC.
    #[error("spiderpool IP allocation error: no Interface {0} IP allocation found")]
    NoAllocation(IfName),
    /// The agent's answer holds something that is not an address or a route.
    #[error("spiderpool IP allocation error: the agent's answer holds {what} {text:?}")]
    AllocationAnswer {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
    /// The agent has no coordinator configuration.
    #[error("failed to GetCoordinatorConfig")]
    CoordinatorConfig(#[source] ClientError),
    /// The agent refused the NICs.
    #[error("failed to register the pod's NICs with spiderpool-agent")]
    Register(#[source] ClientError),
    /// The pod cannot be set up.
    #[error("the pod cannot be set up")]
    Plan(#[from] PlanError),
    /// The kernel refused.
    #[error("the kernel refused")]
    Netlink(#[from] NetlinkError),
    /// A step of the plan failed; those before it are rolled back.
    #[error("failed to set up the pod: {step}")]
    Step {
        /// The step.
        step: Box<Step>,
        /// Why.
        source: StepError,
    },
    /// A device is not there.
    #[error("device {0} is gone")]
    NoDevice(IfName),
    /// The programs cannot be opened.
    #[error(
        "the eBPF dataplane is not there: mount bpffs (mount -t bpf bpf /sys/fs/bpf) and check that spiderpool-agent \
         runs on this node with dataplane ebpf"
    )]
    Programs(#[source] OpenError),
    /// The programs cannot be attached.
    #[error(transparent)]
    Attach(AttachError),
    /// The request needs a feature that is not there yet.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// CHECK found differences.
    #[error("{nic} is not as it was set up; missing: {}", missing.join(", "))]
    Check {
        /// The NIC.
        nic: IfName,
        /// What is missing.
        missing: Vec<String>,
    },
    /// CHECK found that addresses are missing.
    #[error("{nic} lacks addresses {missing:?}")]
    MissingAddresses {
        /// The NIC.
        nic: IfName,
        /// The addresses.
        missing: Vec<IpAddr>,
    },
    /// A defect of ours.
    #[error("internal error")]
    Panic(#[source] PanicText),
}

/// What a panic said.
#[derive(Debug, Error)]
#[error("{0}; please report this")]
pub struct PanicText(pub String);

impl PluginError {
    /// The CNI error code: 1 to 99 as the specification has them, 100 and above are ours.
    pub fn code(&self) -> u32 {
        match self {
            Self::Version(_) => 1,
            Self::Environment(_) | Self::NetNs(_) | Self::Step { source: StepError::Netns(_), .. } => 4,
            Self::Stdin(_) => 5,
            Self::Decode(_) => 6,
            Self::Settings(_) | Self::Config(_) => 7,
            Self::AgentDown(_) => 11,
            Self::Allocation(e) | Self::CoordinatorConfig(e) | Self::Register(e) if e.is_retryable() => 11,
            Self::Allocation(_) | Self::NoAllocation(_) | Self::AllocationAnswer { .. } => 100,
            Self::CoordinatorConfig(_) | Self::Register(_) => 101,
            Self::Plan(PlanError::Unsupported(_)) | Self::Unsupported(_) => 102,
            Self::Plan(_) => 103,
            Self::Netlink(_) | Self::NoDevice(_) | Self::Step { .. } => 104,
            Self::Programs(_) | Self::Attach(_) => 105,
            Self::Check { .. } | Self::MissingAddresses { .. } => 106,
            Self::Panic(_) => 199,
        }
    }

    /// A short constant for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Version(_) => "version",
            Self::Environment(_) => "environment",
            Self::NetNs(_) | Self::Step { source: StepError::Netns(_), .. } => "netns",
            Self::Stdin(_) | Self::Decode(_) | Self::Settings(_) | Self::Config(_) => "config",
            Self::AgentDown(_) => "agent_down",
            Self::Allocation(_) | Self::NoAllocation(_) | Self::AllocationAnswer { .. } => "allocation",
            Self::CoordinatorConfig(_) => "coordinator_config",
            Self::Register(_) => "register",
            Self::Plan(_) => "plan",
            Self::Unsupported(_) => "unsupported",
            Self::Netlink(_) | Self::NoDevice(_) | Self::Step { .. } => "kernel",
            Self::Programs(_) | Self::Attach(_) => "programs",
            Self::Check { .. } | Self::MissingAddresses { .. } => "check",
            Self::Panic(_) => "panic",
        }
    }

    /// As it is printed.
    pub fn to_object(&self, cni_version: &str) -> ErrorObject {
        let mut details = Vec::new();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            details.push(error.to_string());
            source = error.source();
        }
        // Errors that quote their source in full need not repeat it.
        details.dedup_by(|inner, outer| outer.contains(inner.as_str()));
        let (msg, details) = (self.to_string(), details.join(": "));
        // An error without a source says why behind its first colon, or all in one.
        let (msg, details) = match msg.split_once(": ") {
            _ if !details.is_empty() => (msg, details),
            Some((what, why)) => (what.to_owned(), why.to_owned()),
            None => (msg.clone(), msg),
        };
        let (msg, details) = (one_line(&msg), one_line(&details));
        ErrorObject { cni_version: cni_version.to_owned(), code: self.code(), msg, details }
    }

    /// An agent that cannot be reached is told apart from one that refuses.
    pub fn of_client(error: ClientError, refused: impl FnOnce(ClientError) -> Self) -> Self {
        if error.is_unreachable() { Self::AgentDown(error) } else { refused(error) }
    }
}

impl From<ApplyError> for PluginError {
    fn from(error: ApplyError) -> Self {
        Self::Step { step: error.step, source: error.source }
    }
}

impl From<AttachError> for PluginError {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Netlink(error) => Self::Netlink(error),
            foreign @ AttachError::ForeignFilter { .. } => Self::Attach(foreign),
        }
    }
}

/// What runtimes and `kubectl describe pod` show is one line: a verifier's log or a quoted object is not.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_control()).map(str::trim).filter(|part| !part.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> ErrorObject {
        PluginError::Allocation(ClientError::Refused { status: 500, text: text.to_owned() })
            .to_object("1.0.0")
    }

    /// Multus and containerd put both members behind their own words, as `MSG; DETAILS`.
    #[test]
    fn an_exhausted_pool_is_one_line_with_one_prefix() {
        let agent = "failed to allocate any IPv4 IP address to NIC net1 from IPPools [p]: all IP addresses used out of \
                     IPPool p (3 usable, 1 of them reserved): add some to its spec.ips or name another one";
        let error = refused(agent);
        assert_eq!((error.code, error.msg.as_str()), (100, "spiderpool IP allocation error"));
        assert_eq!(error.details, agent);
    }

    #[test]
    fn several_lines_become_one() {
        let error =
            refused("the kernel refused the program egress:\n  0: (b7) r0 = 0\r\n\n\t1: exit\u{1b}[0m\n");
        assert_eq!(error.details, "the kernel refused the program egress: 0: (b7) r0 = 0 1: exit [0m");
    }

    #[test]
    fn an_agent_without_api_server_is_asked_again() {
        let refused = ClientError::Refused { status: 503, text: "API server unreachable".to_owned() };
        assert_eq!(PluginError::Allocation(refused).code(), 11);
    }
}
