//! Why a SpiderMultusConfig has no NetworkAttachmentDefinition as it should.

use spiderpool_core::error_list::ErrorList;
use spiderpool_core::field_error::FieldError;
use thiserror::Error;

use super::object_key::ObjectKey;

/// What a user should know of, as an Event.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Problem {
    /// The object is wrong.
    #[error("no NetworkAttachmentDefinition is made of it: {}", ErrorList(.0))]
    Invalid(Vec<FieldError>),
    /// The name is another's.
    #[error(
        "the net-attach-def {}/{} already exists and is managed by {owner}. It is left as it is: delete it, or create a \
         SpiderMultusConfig with another name",
        name.namespace, name.name
    )]
    NameTaken { name: ObjectKey, owner: String },
    /// There is no such kind of object.
    #[error(
        "the API server does not know NetworkAttachmentDefinitions: install Multus, which brings their CRD \
         (network-attachment-definitions.k8s.cni.cncf.io)"
    )]
    NoMultus,
    /// What is there is not known.
    #[error("the API server does not list NetworkAttachmentDefinitions: {0}")]
    NotListed(String),
    /// The API server said no.
    #[error("the NetworkAttachmentDefinition {} was not written: {error}", name.name)]
    Refused { name: ObjectKey, error: String },
}

impl Problem {
    /// The reason of the Event.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "InvalidSpec",
            Self::NameTaken { .. } => "NameTaken",
            Self::NoMultus => "MultusNotInstalled",
            Self::NotListed(_) => "NotListed",
            Self::Refused { .. } => "NotWritten",
        }
    }
}
