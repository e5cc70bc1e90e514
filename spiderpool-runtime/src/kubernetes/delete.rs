//! Deleting an object on the condition that it is the one that was decided upon.

use std::fmt::Debug;

use kube::Api;
use kube::api::{self, DeleteParams};
use kube::core::ObjectMeta;
use serde::de::DeserializeOwned;

use super::{ApiFailure, Kubernetes};

/// What became of a deletion with preconditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// The object is gone, or is being deleted.
    Done,
    /// The object has changed since it was decided upon: read it again.
    Changed,
}

/// Which state of which object is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preconditions<'a> {
    /// The object's name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its resourceVersion; absent means any.
    pub version: Option<&'a str>,
}

impl<'a> Preconditions<'a> {
    /// The object as it was read.
    pub fn from_meta(meta: &'a ObjectMeta) -> Self {
        Self {
            name: meta.name.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
            version: meta.resource_version.as_deref(),
        }
    }

    /// Whatever has been written to the object since.
    #[must_use]
    pub fn at_any_version(self) -> Self {
        Self { version: None, ..self }
    }
}

impl Kubernetes {
    /// Deletes an object if it meets the preconditions: another object may have its name by now. It is safe to retry.
    pub async fn delete<K>(&self, api: &Api<K>, object: &Preconditions<'_>) -> Result<Deletion, ApiFailure>
    where
        K: Clone + DeserializeOwned + Debug,
    {
        let parameters = DeleteParams {
            preconditions: Some(api::Preconditions {
                uid: Some(object.uid.to_owned()),
                resource_version: object.version.map(ToOwned::to_owned),
            }),
            ..DeleteParams::default()
        };
        match self.write_deletion(api.delete(object.name, &parameters)).await {
            Ok(_) => Ok(Deletion::Done),
            Err(failure) if failure.is_not_found() => Ok(Deletion::Done),
            Err(failure) if failure.is_conflict() => Ok(Deletion::Changed),
            Err(failure) => Err(failure),
        }
    }
}
