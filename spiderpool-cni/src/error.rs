//! Why a plugin failed, with the CNI error code of each.

use std::net::IpAddr;
use std::time::Duration;

use spiderpool_api::agent::ipam::AddressConflict;
use spiderpool_client::ClientError;
use spiderpool_core::Unsupported;
use spiderpool_core::coordinator::{PlanError, SettingsError, Step};
use spiderpool_core::ifacer::{ConflictError, IfacerSettingsError};
use spiderpool_core::mac::MacAddr;
use spiderpool_core::names::{IfName, NameError};
use spiderpool_dataplane::{AttachError, OpenError};
use spiderpool_net::executor::{ApplyError, StepError};
use spiderpool_net::netlink::NetlinkError;
use spiderpool_net::netns::NetNsError;
use spiderpool_net::probe::ProbeError;
use thiserror::Error;

use crate::env::EnvError;
use crate::spec::{ErrorObject, VersionError};

mod reason;

pub use reason::Reason;

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
    #[error("invalid network configuration")]
    Config(#[from] ConfigError),
    /// The agent cannot be asked.
    #[error("unhealthy spiderpool-agent backend")]
    AgentDown(#[source] ClientError),
    /// ADD would fail.
    #[error("spiderpool-agent does not answer: no pod can be set up")]
    NotAvailable(#[source] ClientError),
    /// The agent did not remove what is left of ended attachments, or not all of it.
    #[error("garbage collection failed")]
    Gc(#[source] ClientError),
    /// The agent gave no address for this NIC.
    #[error("spiderpool IP allocation error")]
    Allocation(#[from] AllocationError),
    /// Others are in the way of the addresses, or the gateway is not there.
    #[error("the pod's addresses cannot be used")]
    Detection(#[from] DetectionError),
    /// The NIC's link cannot be asked.
    #[error("the NIC's network cannot be asked about the pod's addresses")]
    Probe(#[from] ProbeError),
    /// The agent has no coordinator configuration.
    #[error("failed to GetCoordinatorConfig")]
    CoordinatorConfig(#[source] ClientError),
    /// The agent refused the NICs.
    #[error("failed to register the pod's NICs with spiderpool-agent")]
    Register(#[source] ClientError),
    /// The pod cannot be set up.
    #[error("the pod cannot be set up")]
    Plan(#[from] PlanError),
    /// The node has something else in the place of the network's interface.
    #[error("the node's interface for the network cannot be made")]
    Interfaces(#[from] ConflictError),
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
    #[error("failed to attach the eBPF programs")]
    Attach(#[source] AttachError),
    /// The request needs a feature that is not there yet.
    #[error("not supported by this version of Spiderpool")]
    Unsupported(#[from] Unsupported),
    /// CHECK found differences.
    #[error("CHECK failed")]
    Check(#[source] CheckError),
    /// A defect of ours.
    #[error("internal error")]
    Panic(#[source] PanicText),
}

/// What a panic said.
#[derive(Debug, Error)]
#[error("{0}; please report this")]
pub struct PanicText(pub String);

/// A field of the network configuration, or of what it was merged with, is missing or wrong.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// `name`.
    #[error("name is missing")]
    NoName,
    /// `prevResult`.
    #[error("prevResult is missing: coordinator must come after a main plugin in the list")]
    NoPrevResult,
    /// `cni.dev/valid-attachments`.
    #[error("cni.dev/valid-attachments is missing: without it nothing is removed")]
    NoAttachments,
    /// An address that is asked for.
    #[error("{member}: {text:?} is not an IP address")]
    RequestedAddress {
        /// Where it is asked for.
        member: &'static str,
        /// As written.
        text: String,
    },
    /// The level of the log.
    #[error("unsupported log level {0:?}")]
    LogLevel(String),
    /// What ifacer is to make.
    #[error(transparent)]
    Ifacer(#[from] IfacerSettingsError),
    /// A name that is made from the request.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The agent's answer to a registration lacks a NIC.
    #[error("spiderpool-agent gave {0} no id")]
    NoNicId(IfName),
}

/// Why a NIC has no address.
#[derive(Debug, Error)]
pub enum AllocationError {
    /// The agent refused.
    #[error(transparent)]
    Agent(ClientError),
    /// The agent gave addresses, but none for this NIC.
    #[error("no Interface {0} IP allocation found")]
    NoAddress(IfName),
    /// The agent's answer holds something that is not an address or a route.
    #[error("the agent's answer holds {what} {text:?}")]
    Answer {
        /// What it should be.
        what: &'static str,
        /// What it is.
        text: String,
    },
}

/// Why a NIC cannot use its addresses.
#[derive(Debug, Error)]
pub enum DetectionError {
    /// Others have them.
    #[error(
        "others use addresses on the network of NIC {nic}: {}; no further ones are tried in this attempt",
        list_conflicts(conflicts)
    )]
    Conflicts {
        /// The NIC.
        nic: IfName,
        /// All that were tried.
        conflicts: Vec<AddressConflict>,
    },
    /// The agent gives the same one again.
    #[error(
        "spiderpool-agent gives {address} to NIC {nic} again, which {mac} uses on its network: update the agent"
    )]
    SameAgain {
        /// The NIC.
        nic: IfName,
        /// The address.
        address: IpAddr,
        /// Who has it.
        mac: MacAddr,
    },
    /// Gateways do not answer.
    #[error(
        "no answer from {} on the network of NIC {nic} within {} ms: check spec.gateway of the IPPool and the VLAN of the \
         network, or set enableGatewayDetection to false",
        list_gateways(gateways), waited.as_millis()
    )]
    Gateway {
        /// The NIC.
        nic: IfName,
        /// The gateways.
        gateways: Vec<IpAddr>,
        /// How long one was waited for.
        waited: Duration,
    },
    /// The NIC is not connected to anything.
    #[error("NIC {0} has no carrier after {1:?}: its network cannot be asked about the pod's addresses")]
    NoCarrier(IfName, Duration),
    /// What was waited for before has taken the time of the ADD.
    #[error(
        "no time is left to ask the network of NIC {nic}, which takes {} ms: see what spiderpool-agent waits for in its log; the \
         next attempt begins with the addresses that the Pod has",
        time.as_millis()
    )]
    NoTime {
        /// The NIC.
        nic: IfName,
        /// How long asking takes.
        time: Duration,
    },
}

fn list_conflicts(conflicts: &[AddressConflict]) -> String {
    let texts = conflicts.iter().map(|conflict| format!("{} by {}", conflict.address, conflict.mac));
    texts.collect::<Vec<_>>().join(", ")
}

fn list_gateways(gateways: &[IpAddr]) -> String {
    gateways.iter().map(|gateway| format!("gateway {gateway}")).collect::<Vec<_>>().join(" and ")
}

/// What CHECK found.
#[derive(Debug, Error)]
pub enum CheckError {
    /// Steps of the plan.
    #[error("{nic} is not as it was set up; missing: {}", missing.join(", "))]
    Steps {
        /// The NIC.
        nic: IfName,
        /// What is missing.
        missing: Vec<String>,
    },
    /// Something else is in the place of the network's interface.
    #[error(transparent)]
    Interfaces(#[from] ConflictError),
    /// Addresses of the result.
    #[error("{nic} lacks addresses {missing:?}")]
    Addresses {
        /// The NIC.
        nic: IfName,
        /// The addresses.
        missing: Vec<IpAddr>,
    },
}

impl PluginError {
    /// Why, for logs and for the CNI error code.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Version(_) => Reason::Version,
            Self::Environment(_) => Reason::Environment,
            Self::NetNs(_) | Self::Step { source: StepError::Netns(_), .. } => Reason::Netns,
            Self::Stdin(_) => Reason::Stdin,
            Self::Decode(_) => Reason::Decode,
            Self::Settings(_) | Self::Config(_) => Reason::Config,
            Self::AgentDown(_) => Reason::AgentUnavailable,
            Self::Allocation(AllocationError::Agent(e))
            | Self::CoordinatorConfig(e)
            | Self::Register(e)
            | Self::Gc(e)
                if e.is_retryable() =>
            {
                Reason::AgentUnavailable
            }
            Self::NotAvailable(_) => Reason::NotAvailable,
            Self::Gc(_) => Reason::Gc,
            Self::Allocation(_) => Reason::Allocation,
            Self::CoordinatorConfig(_) => Reason::CoordinatorConfig,
            Self::Register(_) => Reason::Register,
            Self::Plan(PlanError::Unsupported(_)) | Self::Unsupported(_) => Reason::Unsupported,
            Self::Plan(_) | Self::Interfaces(_) => Reason::Plan,
            Self::Detection(_) => Reason::Detection,
            Self::Netlink(_) | Self::NoDevice(_) | Self::Probe(_) | Self::Step { .. } => Reason::Kernel,
            Self::Programs(_) | Self::Attach(_) => Reason::Programs,
            Self::Check(_) => Reason::Check,
            Self::Panic(_) => Reason::Panic,
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
        // One without a source says all in its message.
        let details = if details.is_empty() { msg.clone() } else { details };
        let (msg, details) = (one_line(&msg), one_line(&details));
        ErrorObject { cni_version: cni_version.to_owned(), code: self.reason().code(), msg, details }
    }

    /// An agent that cannot be reached is told apart from one that refuses.
    pub fn of_client(error: ClientError, refused: impl FnOnce(ClientError) -> Self) -> Self {
        if error.is_unreachable() { Self::AgentDown(error) } else { refused(error) }
    }
}

impl From<NameError> for PluginError {
    fn from(error: NameError) -> Self {
        Self::Config(error.into())
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
            other @ AttachError::Program(_) => Self::Attach(other),
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
        PluginError::from(AllocationError::Agent(ClientError::Refused { status: 500, text: text.to_owned() }))
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
        assert_eq!(PluginError::from(AllocationError::Agent(refused)).reason().code(), 11);
    }
}
