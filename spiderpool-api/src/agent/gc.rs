//! Garbage collection: body of POST `/v1/ipam/gc` and `/v1/dataplane/gc`, our own addition to upstream's API.

use serde::{Deserialize, Serialize};
use spiderpool_core::gc::{SandboxNic, ValidAttachments};
use spiderpool_core::names::{ContainerId, IfName};

/// The attachments of a network that are valid; what is recorded for others of this network is removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GcArgs {
    /// `name` of the CNI configuration.
    pub network: String,
    /// All that are valid. Never absent: an empty list says that nothing is.
    pub valid_attachments: Vec<GcAttachment>,
}

/// One attachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GcAttachment {
    /// `CNI_CONTAINERID`.
    #[serde(rename = "containerID")]
    pub container_id: ContainerId,
    /// `CNI_IFNAME`.
    pub if_name: IfName,
}

impl From<GcArgs> for ValidAttachments {
    fn from(args: GcArgs) -> Self {
        let nics = args.valid_attachments.into_iter();
        let nics = nics.map(|a| SandboxNic { container_id: a.container_id, nic: a.if_name });
        Self { network: args.network, nics: nics.collect() }
    }
}

impl From<ValidAttachments> for GcArgs {
    fn from(valid: ValidAttachments) -> Self {
        let nics = valid.nics.into_iter();
        let nics = nics.map(|nic| GcAttachment { container_id: nic.container_id, if_name: nic.nic });
        Self { network: valid.network, valid_attachments: nics.collect() }
    }
}
